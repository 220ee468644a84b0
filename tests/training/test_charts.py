"""Charts are SVG that a browser reads, and show the numbers they were given."""

import re
from xml.etree import ElementTree

import pytest

from rt2_jax.training.charts import histogram, line_chart, success_bar


def test_a_line_chart_draws_every_point_of_every_series():
    text = line_chart({"a & b": [(0, 0.0), (10, 1.0)], "c": [(5, 0.5)]}, "step", "y", True)
    root = ElementTree.fromstring(text)
    lines = [each.attrib["points"].split() for each in root.iter("polyline")]
    assert [len(points) for points in lines] == [2, 1]
    heights = [float(point.split(",")[1]) for point in lines[0]]
    assert heights[0] > float(lines[1][0].split(",")[1]) > heights[1]
    assert "a & b" in list(root.itertext())


def test_the_first_losses_do_not_flatten_the_rest():
    losses = [(step, 10.0 if step < 2 else 1.0) for step in range(100)]
    root = ElementTree.fromstring(line_chart({"loss": losses}, "step", "nats", False))
    (line,) = root.iter("polyline")
    heights = [float(point.split(",")[1]) for point in line.attrib["points"].split()]
    assert heights[0] == heights[-1] == min(heights)  # both at the upper edge, 1 nat


def test_names_stand_below_the_chart():
    series = {name: [(0, 0.0), (9, 1.0)] for name in "abcde"}
    root = ElementTree.fromstring(line_chart(series, "step", "y", True))
    drawing, legend = root
    assert ["".join(each.itertext()) for each in legend] == list("abcde")
    assert not set("abcde") & {each.text for each in drawing.iter("text")}


def test_a_histogram_counts_every_value_once():
    values = [1.0] * 30 + [2.0] * 10 + [900.0]  # an outlier does not flatten the rest
    root = ElementTree.fromstring(histogram(values, "ms", "answers", bins=10))
    bars = [float(each.attrib["height"]) for each in root.iter("rect")]
    assert len(bars) == 10
    tall = sorted(bars)[-2:]
    assert tall[1] / tall[0] == pytest.approx(30 / 11, rel=0.02)


def test_a_success_bar_is_as_long_as_the_rate_and_says_it_in_words():
    text = success_bar(0.5, 0.4, 0.6)
    assert "50%, 95 % interval 40% to 60%" in text
    widths = [float(width) for width in re.findall(r'<rect width="([\d.]+)"', text)]
    assert widths[1] == widths[0] / 2


@pytest.mark.parametrize("chart", [line_chart({}, "x", "y", False), histogram([], "ms", "answers")])
def test_without_numbers_a_chart_says_so(chart):
    assert chart == "<p>no numbers</p>"
