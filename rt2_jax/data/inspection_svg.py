"""The drawings of the inspection page, as SVG text: histograms, gauges, arrows, curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rt2_jax.actions.space import ActionSpace
from rt2_jax.data.inspection import Field


def histogram(counts: np.ndarray, edges: np.ndarray, marks: Sequence[float] = ()) -> str:
    """Bars of equal width over `edges`; a line at each of `marks`. Heights are square roots.

    Rare values would vanish beside the bar of a robot that stands still.
    """
    width, height, base = 240, 56, 54
    heights = np.sqrt(counts / max(counts.max(), 1)) * (height - 6)
    bar = width / len(counts)
    parts = [
        f'<rect x="{i * bar:.1f}" y="{base - h:.1f}" width="{max(bar - 0.6, 0.8):.2f}" '
        f'height="{h:.1f}"/>'
        for i, h in enumerate(heights)
        if h > 0
    ]
    for mark in marks:
        x = width * (mark - edges[0]) / (edges[-1] - edges[0])
        parts.append(f'<line class="bound" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{base}"/>')
    return (
        f'<svg class="histogram" viewBox="0 0 {width} {height}">{"".join(parts)}'
        f'<line class="axis" x1="0" x2="{width}" y1="{base}" y2="{base}"/></svg>'
    )


def gauge(field: Field, recorded: float, decoded: float) -> str:
    """Where a value is between its bounds: a bar from zero to what is decoded, a ring recorded."""
    width = 150

    def at(value: float) -> float:
        part = (value - field.low) / (field.high - field.low)
        return 5 + (width - 10) * min(max(part, 0.0), 1.0)

    zero = at(0.0)
    left, right = sorted((zero, at(decoded)))
    return (
        f'<svg class="gauge" viewBox="0 0 {width} 14"><line class="axis" x1="5" x2="{width - 5}" '
        f'y1="7" y2="7"/><line class="axis" x1="{zero:.1f}" x2="{zero:.1f}" y1="2" y2="12"/>'
        f'<rect x="{left:.1f}" y="5" width="{max(right - left, 1):.1f}" height="4" rx="2"/>'
        f'<circle cx="{at(recorded):.1f}" cy="7" r="3.5"/></svg>'
    )


def planes(space: ActionSpace) -> list[tuple[str, int, int]]:
    """The planes that a translation can be drawn in: title and the fields along each axis."""
    axes: dict[str, list[int]] = {}
    for i, field in enumerate(space.fields):
        moves = field.unit.startswith("m") and field.levels is None and field.rotation is None
        if moves and field.reference != "absolute" and field.name[-1:] in "xyz":
            axes.setdefault(field.name[-1], []).append(i)
    if any(len(indices) != 1 for indices in axes.values()):
        return []  # two arms: their fields have gauges
    pairs = (("x, y: from above", "x", "y"), ("x, z: from the side", "x", "z"))
    return [(title, axes[a][0], axes[b][0]) for title, a, b in pairs if a in axes and b in axes]


def arrow(
    recorded: tuple[float, float], decoded: tuple[float, float], reach: float, labels: str
) -> str:
    """A translation as an arrow: decoded in colour over recorded in grey; `reach` is the radius."""
    size, middle = 110, 55

    def end(vector: tuple[float, float]) -> tuple[float, float]:
        x, y = (min(max(value / reach, -1.1), 1.1) * 44 for value in vector)
        return middle + x, middle - y

    def line(name: str, vector: tuple[float, float]) -> str:
        x, y = end(vector)
        length = float(np.hypot(x - middle, y - middle))
        head = ""
        if length > 1:
            dx, dy = (x - middle) / length * min(7, length), (y - middle) / length * min(7, length)
            points = f"{x:.1f},{y:.1f} {x - dx - dy / 2:.1f},{y - dy + dx / 2:.1f} "
            points += f"{x - dx + dy / 2:.1f},{y - dy - dx / 2:.1f}"
            head = f'<polygon points="{points}"/>'
        return (
            f'<g class="{name}"><line x1="{middle}" y1="{middle}" x2="{x:.1f}" y2="{y:.1f}"/>'
            f"{head}</g>"
        )

    a, b = labels[0], labels[1]
    return (
        f'<svg class="arrow" viewBox="0 0 {size} {size}"><circle class="rim" cx="{middle}" '
        f'cy="{middle}" r="44"/><line class="axis" x1="11" x2="99" y1="{middle}" y2="{middle}"/>'
        f'<line class="axis" y1="11" y2="99" x1="{middle}" x2="{middle}"/>'
        f'<text x="101" y="52">{a}</text><text x="58" y="9">{b}</text>'
        f"{line('recorded', recorded)}{line('decoded', decoded)}</svg>"
    )


def curve(values: np.ndarray, low: float, high: float) -> str:
    """A field over the steps of an episode; the frame is its bounds."""
    width, height = 200, 40
    last = max(len(values) - 1, 1)
    unit = np.clip((values - low) / ((high - low) or 1), -0.1, 1.1)
    points = " ".join(
        f"{4 + i * (width - 8) / last:.1f},{(height - 6) - u * (height - 12):.1f}"
        for i, u in enumerate(unit)
    )
    zero = (height - 6) - float(np.clip((0 - low) / ((high - low) or 1), 0, 1)) * (height - 12)
    return (
        f'<svg class="curve" viewBox="0 0 {width} {height}"><line class="axis" x1="4" '
        f'x2="{width - 4}" y1="{zero:.1f}" y2="{zero:.1f}"/><polyline points="{points}"/></svg>'
    )
