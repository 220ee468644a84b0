"""Outlines of shapes as a world file writes them: regular polygons, stars, or corner by corner."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from rt2_jax.sim.toml_values import check_list, check_number, check_whole

Outline = tuple[tuple[float, float], ...]

_MOST_CORNERS = 100


def read_outline(where: str, shape: Mapping[str, Any]) -> Outline:
    """The corners of a shape, counter-clockwise inside the unit circle.

    Raises:
      ValueError: not one of the ways to write it (and perhaps `height`), or an outline that leaves
        the unit circle or that cannot be seen as a whole from the origin; `where` begins it.
    """
    kinds = set(shape) - {"height"}
    if len(kinds) != 1 or not kinds <= set(_OUTLINES):
        raise ValueError(
            f"{where}: found {sorted(shape)}, expected one of {', '.join(_OUTLINES)} (and height)"
        )
    kind = kinds.pop()
    outline = _OUTLINES[kind](f"{where} {kind}", shape[kind])
    for i, ((x0, y0), (x1, y1)) in enumerate(zip(outline, outline[1:] + outline[:1], strict=True)):
        if math.hypot(x0, y0) > 1.001:  # outlines are written with three decimals
            raise ValueError(f"{where}: corner {i} ({x0}, {y0}) lies outside the unit circle")
        if x0 * y1 - x1 * y0 <= 0:
            raise ValueError(
                f"{where}: the side from corner {i} ({x0}, {y0}) to ({x1}, {y1}) does not run "
                "counter-clockwise around the origin; every corner must be visible from there"
            )
    return outline


def _regular(where: str, value: Any) -> Outline:
    return _ring([1.0] * check_whole(where, value, 3, _MOST_CORNERS))


def _star(where: str, value: Any) -> Outline:
    points, inner = check_list(where, value, "[points, inner radius]", 2, 2)
    inner = check_number(where, inner, 0.05, 1.0)
    return _ring([1.0, inner] * check_whole(where, points, 2, _MOST_CORNERS // 2))


def _ring(radii: list[float]) -> Outline:
    step = 2 * math.pi / len(radii)
    return tuple((r * math.cos(i * step), r * math.sin(i * step)) for i, r in enumerate(radii))


def _corners(where: str, value: Any) -> Outline:
    form = f"3 to {_MOST_CORNERS} corners [x, y]"
    corners = [
        check_list(where, corner, "each corner as [x, y]", 2, 2)
        for corner in check_list(where, value, form, 3, _MOST_CORNERS)
    ]
    return tuple(
        (check_number(where, x, -1.0, 1.0), check_number(where, y, -1.0, 1.0)) for x, y in corners
    )


_OUTLINES: Mapping[str, Callable[[str, Any], Outline]] = {
    "regular": _regular,
    "star": _star,
    "outline": _corners,
}
