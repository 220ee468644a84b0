"""The page of a run: everything in one file, every step once, every restart marked."""

import html.parser
import json
import re

import pytest

from rt2_jax.training.run_page import write_run_page

START = {"init": 1.0, "compile": 2.0, "step": 30.0, "data_wait": 1.0, "checkpoint": 1.0, "lost": 0}


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def numbers(step, **more):
    return {
        "step": step,
        "loss": 1 / step,
        "skipped_steps": 0.0,
        "arm <left> & right/loss": 0.5,
        "arm <left> & right/accuracy": 0.75,
        "arm <left> & right/examples": 6.0,
        "web/loss": 2.0,
        "web/accuracy": 0.5,
        "web/examples": 2.0,
        "seconds_per_step": 0.5,
        **more,
    }


@pytest.fixture
def run(tmp_path):
    """A run of 20 steps that was started twice, the second time from step 10."""
    directory = tmp_path / "my_run"
    write_lines(
        directory / "metrics.jsonl",
        [*map(numbers, range(1, 16)), *(numbers(step, mfu=0.25) for step in range(11, 21))],
    )
    write_lines(
        directory / "goodput.jsonl",
        [
            {"begin": 1e9, "time": 1e9 + 35, "first_step": 0, "step": 10, "seconds": START},
            {"begin": 1e9 + 45, "time": 1e9 + 80, "first_step": 10, "step": 20, "seconds": START},
        ],
    )
    (directory / "config.gin").write_text("PROMPT = '<b>'\n")
    return directory


def figure(page, title):
    return page.split(f"<figcaption>{title}</figcaption>")[1].split("</figure>")[0]


def points(figure):
    return [line.split() for line in re.findall(r'<polyline points="([^"]*)"', figure)]


class Parser(html.parser.HTMLParser):
    """Notes what the page would load and whether elements are closed in their order."""

    def __init__(self):
        super().__init__()
        self.loaded, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.loaded += [value for name, value in attrs if name in ("src", "href")]
        if tag in ("svg", "figure", "div", "table", "ul", "details", "main"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in ("svg", "figure", "div", "table", "ul", "details", "main"):
            assert self.open.pop() == tag


def test_the_page_is_whole_loads_nothing_and_escapes_names(run):
    path = write_run_page(run)
    assert path == run / "report.html"
    page = path.read_text()
    parser = Parser()
    parser.feed(page)
    assert parser.open == [] and parser.loaded == [] and "http" not in page
    assert "arm &lt;left&gt; &amp; right" in page and "<left>" not in page
    assert "PROMPT = &#x27;&lt;b&gt;&#x27;" in page
    assert "<h1>my_run</h1>" in page and "step 20" in page


def test_a_step_that_was_taken_again_is_drawn_once_and_the_restart_is_marked(run):
    page = write_run_page(run).read_text()
    loss = figure(page, "Loss, of each source")
    assert [len(line) for line in points(loss)] == [20, 20]
    places = [float(point.split(",")[0]) for point in points(loss)[0]]
    assert places == sorted(places)
    (mark,) = re.findall(r'<line class="mark" x1="([\d.]+)"', loss)
    assert float(mark) == pytest.approx(places[9], abs=0.1)  # after step 10
    assert "restart" in loss


def test_numbers_are_those_that_were_logged(run):
    page = write_run_page(run).read_text()
    assert [len(line) for line in points(figure(page, "MFU"))] == [10]
    # 60 of the 80 seconds, of both starts and the pause, were steps.
    assert "<b>75%</b><span>goodput" in page and "<b>1 min 20 s</b><span>wall time" in page
    assert "<td>120<td>75.0%<td>0.5000<td>75.0%" in page  # 20 lines of 6 of 8 examples
    assert "Every step's loss and gradient was finite" in page


def test_evaluations_of_checkpoints_are_drawn_by_metric(run):
    errors = {"arm/x/mean_error_m": 0.1, "arm/y/mean_error_m": 0.2, "seconds": 9.0}
    for name in ("validation", "table"):
        lines = [{"step": step, "success": 0.5, **errors} for step in (10, 20)]
        write_lines(run / "eval" / f"{name}.jsonl", lines)
    page = write_run_page(run).read_text()
    error, success = figure(page, "mean_error_m"), figure(page, "success")
    assert [len(line) for line in points(error)] == [2, 2, 2, 2]
    for name in ("table: arm/x", "table: arm/y", "validation: arm/x", "validation: arm/y"):
        assert f"</svg>{name}</li>" in error
    assert [len(line) for line in points(success)] == [2, 2]
    assert "</svg>table</li>" in success and "seconds</figcaption>" not in page


def test_a_folder_without_a_run_and_a_damaged_file_are_refused_by_name(tmp_path, run):
    with pytest.raises(FileNotFoundError, match="no .*metrics.jsonl, so no run .*its MODEL_DIR"):
        write_run_page(tmp_path)
    with (run / "metrics.jsonl").open("a") as file:
        file.write("no json\n")
    with pytest.raises(ValueError, match="metrics.jsonl, line 26: found 'no json', expected a"):
        write_run_page(run)


def test_a_line_that_is_being_written_is_left_out(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "lo')
    assert "step 20" in write_run_page(run).read_text()
