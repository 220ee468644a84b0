"""Charts as inline SVG: the report is one file that needs nothing else."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

COLOURS = ("#1f5fa8", "#c05621", "#2f855a", "#805ad5", "#b7791f")
_WIDTH, _HEIGHT = 560, 220
_LEFT, _BOTTOM, _TOP, _RIGHT = 48, 34, 18, 12
_LEGEND = 16

Points = Sequence[tuple[float, float]]


def line_chart(series: Mapping[str, Points], x_label: str, y_label: str, percent: bool) -> str:
    """Lines over a common x; `percent` draws y from 0 to 1 as 0 to 100 %.

    Otherwise y reaches what all but 3 % of the points stay below; the others lie on the upper edge,
    so that the first steps of a loss do not flatten the rest.
    """
    every = [point for points in series.values() for point in points]
    if not every:
        return "<p>no numbers</p>"
    right = max(x for x, _ in every)
    ordered = sorted(y for _, y in every)
    top = 1.0 if percent else _nice(ordered[int(0.97 * (len(ordered) - 1))])
    marks = [_axes(right, top, x_label, y_label, percent)]
    for index, (name, points) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{_x(x, right):.1f},{_y(min(y, top), top):.1f}" for x, y in points)
        marks.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        )
        marks.append(_legend(index, name, colour))
    return _svg(marks, _HEIGHT + _LEGEND * math.ceil(len(series) / 2))


def histogram(values: Sequence[float], x_label: str, bins: int = 30) -> str:
    """How often values fall in each of `bins` equal parts up to the 99th percentile."""
    if not values:
        return "<p>no numbers</p>"
    ordered = sorted(values)
    right = _nice(ordered[int(0.99 * (len(ordered) - 1))])
    counts = [0] * bins
    for value in values:
        counts[min(int(value / right * bins), bins - 1)] += 1
    top = _nice(max(counts))
    marks = [_axes(right, top, x_label, "answers", False)]
    for index, count in enumerate(counts):
        left, end = _x(index * right / bins, right), _x((index + 1) * right / bins, right)
        y = _y(count, top)
        marks.append(
            f'<rect x="{left + 0.5:.1f}" y="{y:.1f}" width="{end - left - 1:.1f}" '
            f'height="{_y(0, top) - y:.1f}" fill="{COLOURS[0]}"/>'
        )
    return _svg(marks)


def success_bar(rate: float, low: float, high: float) -> str:
    """A bar with its confidence interval."""
    width, height = 180, 16
    return (
        f'<svg class="bar" width="{width}" height="{height}" role="img" '
        f'aria-label="{rate:.0%}, 95 % interval {low:.0%} to {high:.0%}">'
        f'<rect width="{width}" height="{height}" fill="#e8edf2"/>'
        f'<rect width="{rate * width:.1f}" height="{height}" fill="{COLOURS[0]}"/>'
        f'<line x1="{low * width:.1f}" x2="{high * width:.1f}" y1="8" y2="8" stroke="#111" '
        'stroke-width="1.5"/></svg>'
    )


def _svg(marks: Sequence[str], height: int = _HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'font-family="sans-serif" font-size="11">{"".join(marks)}</svg>'
    )


def _axes(right: float, top: float, x_label: str, y_label: str, percent: bool) -> str:
    marks = []
    for part in range(5):
        value = part * top / 4
        y = _y(value, top)
        text = f"{value:.0%}" if percent else f"{value:g}"
        marks.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="#d8dee4"/><text x="{_LEFT - 6}" y="{y + 4:.1f}" '
            f'text-anchor="end">{text}</text>'
        )
        at = part * right / 4
        anchor = "end" if part == 4 else "middle"
        marks.append(
            f'<text x="{_x(at, right):.1f}" y="{_HEIGHT - _BOTTOM + 14}" '
            f'text-anchor="{anchor}">{at:g}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    marks.append(
        f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{html.escape(x_label)}</text>'
    )
    marks.append(f'<text x="{_LEFT}" y="10" fill="#555">{html.escape(y_label)}</text>')
    return "".join(marks)


def _legend(index: int, name: str, colour: str) -> str:
    """Two to a row, below the chart."""
    y = _HEIGHT + _LEGEND * (index // 2 + 1) - 2
    x = _LEFT + index % 2 * (_WIDTH - _LEFT) / 2
    return (
        f'<rect x="{x}" y="{y - 8}" width="10" height="3" fill="{colour}"/>'
        f'<text x="{x + 15}" y="{y - 3}">{html.escape(name)}</text>'
    )


def _x(value: float, right: float) -> float:
    return _LEFT + (value / right if right else 0) * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - (value / top if top else 0) * (_HEIGHT - _BOTTOM - _TOP)


def _nice(value: float) -> float:
    """The next of 1, 2, 4, 5, 8 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 8, 10) if step * power >= value)
