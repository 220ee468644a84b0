"""Charts as inline SVG: a report is one file that needs nothing else."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

Points = Sequence[tuple[float, float]]

_COLOURS = 8
_WIDTH, _HEIGHT = 560, 232
_LEFT, _BOTTOM, _TOP, _RIGHT = 56, 38, 22, 26
_MARKERS = 30  # lines of so few points show each of them

CHART_STYLE = """
:root { --c0: #1f5fa8; --c1: #c05621; --c2: #2f855a; --c3: #805ad5; --c4: #b7791f; --c5: #b83280;
  --c6: #0e7c86; --c7: #6b7280; --chart-grid: #d8dee4; --chart-text: #4a5568; --chart-mark: #a0aec0;
  --chart-empty: #e8edf2; --chart-ink: #111 }
.chart svg { display: block; width: 100%; height: auto; font: 11px system-ui, sans-serif }
.chart text { fill: var(--chart-text) } .chart .grid { stroke: var(--chart-grid) }
.chart .mark { stroke: var(--chart-mark); stroke-dasharray: 4 3 }
.chart polyline { fill: none; stroke-width: 1.7; stroke-linejoin: round }
.chart ul { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .2rem 0 0;
  padding: 0 0 0 2.8rem; font-size: .8rem; color: var(--chart-text) }
.chart li { overflow-wrap: anywhere } .chart li svg { display: inline-block; width: 18px;
  height: 8px; margin-right: .35rem; vertical-align: middle }
.bar .empty { fill: var(--chart-empty) } .bar .ink { stroke: var(--chart-ink); stroke-width: 1.5 }
""" + "".join(
    f".c{i} {{ stroke: var(--c{i}) }} .f{i} {{ fill: var(--c{i}) }}\n" for i in range(_COLOURS)
)
"""What a page with charts has in its `style`."""

CHART_STYLE_DARK = """
@media (prefers-color-scheme: dark) { :root { --c0: #6ea8e8; --c1: #f0955a; --c2: #68c08c;
  --c3: #b39af5; --c4: #e0b04f; --c5: #ee82b8; --c6: #56c2cc; --c7: #9aa3af; --chart-grid: #343d48;
  --chart-text: #a9b4c0; --chart-mark: #66717e; --chart-empty: #2a323c; --chart-ink: #eee } }
"""
"""What it has too, where the page itself turns dark."""


def line_chart(
    series: Mapping[str, Points],
    x_label: str,
    y_label: str,
    percent: bool = False,
    marks: Sequence[float] = (),
    mark_label: str = "restart",
) -> str:
    """Lines over a common x, with their names below where there are several.

    With `percent`, y goes from 0 to 1, or less far if it is small, and is written as %. Otherwise
    it reaches what all but 3 % of the points stay below; the others lie on the upper edge, so that
    the first steps of a loss do not flatten the rest. What is not finite is left out.

    Args:
      series: points by increasing x, by name.
      x_label: what x is, with its unit.
      y_label: the same of y.
      percent: see above.
      marks: x that get a dashed line from top to bottom.
      mark_label: what the marks are.
    """
    series = {
        name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in series.items()
    }
    every = [point for points in series.values() for point in points]
    if not every:
        return "<p>no numbers</p>"
    xs, ys = [x for x, _ in every], sorted(y for _, y in every)
    left, right = min(xs), max(xs)
    if 0 < left < 0.1 * right:
        left = 0
    if left == right:
        left, right = left - 1, right + 1
    usual = ys[int(0.97 * (len(ys) - 1))]
    low, high = _reach(ys[0], usual)
    if percent:
        low, high = 0.0, 1.0 if usual > 0.4 else _reach(0.0, usual)[1]
    frame = _Frame(left, right, low, high)
    parts = [_axes(frame, x_label, y_label, percent)]
    within = [x for x in marks if left <= x <= right]
    for x in within:
        parts.append(
            f'<line class="mark" x1="{frame.x(x):.1f}" x2="{frame.x(x):.1f}" y1="{_TOP}" '
            f'y2="{_HEIGHT - _BOTTOM}"/>'
        )
    legend = []
    for index, (name, points) in enumerate(series.items()):
        style = _line_style(index)
        places = [(frame.x(x), frame.y(y)) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" {style}/>')
        if len(points) <= _MARKERS:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" class="f{index % _COLOURS}"/>'
                for x, y in places
            ]
        legend.append(_legend(f'<line x2="18" y1="4" y2="4" stroke-width="3" {style}/>', name))
    if len(series) < 2:
        legend = []
    if within:
        legend.append(_legend('<line class="mark" x2="18" y1="4" y2="4"/>', mark_label))
    return _chart(parts, legend)


def histogram(values: Sequence[float], x_label: str, y_label: str, bins: int = 30) -> str:
    """How often values fall in each of `bins` equal parts up to the 99th percentile."""
    if not values:
        return "<p>no numbers</p>"
    ordered = sorted(values)
    right = _reach(0.0, ordered[int(0.99 * (len(ordered) - 1))])[1]
    counts = [0] * bins
    for value in values:
        counts[min(int(value / right * bins), bins - 1)] += 1
    frame = _Frame(0.0, right, *_reach(0.0, max(counts)))
    marks = [_axes(frame, x_label, y_label, False)]
    for index, count in enumerate(counts):
        left, end = frame.x(index * right / bins), frame.x((index + 1) * right / bins)
        y = frame.y(count)
        marks.append(
            f'<rect x="{left + 0.5:.1f}" y="{y:.1f}" width="{end - left - 1:.1f}" '
            f'height="{frame.y(0) - y:.1f}" class="f0"/>'
        )
    return _chart(marks, [])


def success_bar(rate: float, low: float, high: float) -> str:
    """A bar with its confidence interval."""
    width, height = 180, 16
    return (
        f'<svg class="bar" width="{width}" height="{height}" role="img" '
        f'aria-label="{rate:.0%}, 95 % interval {low:.0%} to {high:.0%}">'
        f'<rect width="{width}" height="{height}" class="empty"/>'
        f'<rect width="{rate * width:.1f}" height="{height}" class="f0"/>'
        f'<line x1="{low * width:.1f}" x2="{high * width:.1f}" y1="8" y2="8" class="ink"/></svg>'
    )


def share_bar(parts: Sequence[float]) -> str:
    """A bar as wide as the page, divided as the numbers are; part *i* has the class `f<i>`."""
    total, x, marks = sum(parts) or 1.0, 0.0, []
    for index, part in enumerate(parts):
        width = 1000 * part / total
        marks.append(
            f'<rect x="{x:.2f}" width="{width:.2f}" height="24" class="f{index % _COLOURS}"/>'
        )
        x += width
    return (
        '<svg class="share" viewBox="0 0 1000 24" preserveAspectRatio="none" width="100%" '
        f'height="24" role="img">{"".join(marks)}</svg>'
    )


def thinned(points: Points, count: int = 400) -> list[tuple[float, float]]:
    """At most so many points: means of neighbours, without what is not finite."""
    points = [(x, y) for x, y in points if math.isfinite(y)]
    size = math.ceil(len(points) / count) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def short_number(value: float) -> str:
    """`1.2M`, `0.05`, `3e-05`: few characters for an axis."""
    if abs(value) < 1e4:
        return f"{round(value, 12):g}"
    power = min(int(math.log10(abs(value)) // 3), 6)
    return f"{value / 1000**power:g}{('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}"


class _Frame:
    """From numbers to places in the picture."""

    def __init__(self, left: float, right: float, low: float, high: float) -> None:
        self.left, self.right, self.low, self.high = left, right, low, high

    def x(self, value: float) -> float:
        part = (value - self.left) / (self.right - self.left)
        return _LEFT + part * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        part = (min(value, self.high) - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - part * (_HEIGHT - _BOTTOM - _TOP)


def _axes(frame: _Frame, x_label: str, y_label: str, percent: bool) -> str:
    marks = []
    for value in _ticks(frame.low, frame.high, 4):
        y = frame.y(value)
        text = f"{100 * value:.3g}%" if percent else short_number(value)
        marks.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        )
    for value in _ticks(frame.left, frame.right, 5):
        marks.append(
            f'<text x="{frame.x(value):.1f}" y="{_HEIGHT - _BOTTOM + 15}" '
            f'text-anchor="middle">{short_number(value)}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    marks.append(
        f'<text x="{middle}" y="{_HEIGHT - 5}" text-anchor="middle">{html.escape(x_label)}</text>'
        f'<text x="{_LEFT}" y="12">{html.escape(y_label)}</text>'
    )
    return "".join(marks)


def _chart(parts: Sequence[str], legend: Sequence[str]) -> str:
    names = f"<ul>{''.join(legend)}</ul>" if legend else ""
    return (
        f'<div class="chart"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}'
        f"</svg>{names}</div>"
    )


def _legend(mark: str, name: str) -> str:
    return f'<li><svg viewBox="0 0 18 8">{mark}</svg>{html.escape(name)}</li>'


def _line_style(index: int) -> str:
    """A colour; the same one again is dashed."""
    dashes = ("", ' stroke-dasharray="6 3"', ' stroke-dasharray="2 2"')[index // _COLOURS % 3]
    return f'class="c{index % _COLOURS}"{dashes}'


def _reach(least: float, most: float) -> tuple[float, float]:
    """The ends of an axis: at 0 unless that would flatten what is drawn."""
    if least >= 0 and least < 0.6 * most:
        least = 0.0
    if least == most:
        least, most = min(0.0, least), max(0.0, most)
    if least == most:
        most = 1.0
    for _ in range(2):  # the second time for the wider range
        step = _nice_step((most - least) / 4)
        least = math.floor(least / step + 1e-9) * step
        most = math.ceil(most / step - 1e-9) * step
    return least, most


def _ticks(low: float, high: float, parts: int) -> list[float]:
    step = _nice_step((high - low) / parts)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _nice_step(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= 0.999 * value)
