"""Places in a picture as text: two `<loc>` pieces, of the row and of the column.

Coordinates are fractions of the picture's sides, from the top left corner. The vocabulary has 1024
pieces to an axis, as PaliGemma's has (Beyer et al. 2024, section 3.1); tasks use some of them.
"""

from __future__ import annotations

import re

LOCATIONS = 1024
_PLACE = re.compile(r"<loc(\d{4})>\s*<loc(\d{4})>")


def place_text(y: float, x: float, levels: int = LOCATIONS) -> str:
    """The place, each axis in the middle of one of `levels` parts: `<loc0480><loc0032>`.

    Fewer levels are learned from fewer pictures: models of a million parameters never found things
    on a grid finer than their own patches.

    Raises:
      ValueError: a coordinate outside 0..1, or another number of levels than 1 to 1024.
    """
    if not (0 <= y <= 1 and 0 <= x <= 1) or not 1 <= levels <= LOCATIONS:
        raise ValueError(
            f"place: found ({y}, {x}) in {levels} levels, expected fractions 0..1 of the picture's "
            f"sides and 1 to {LOCATIONS} levels"
        )
    parts = (min(int(value * levels), levels - 1) for value in (y, x))
    return "".join(f"<loc{int((part + 0.5) * LOCATIONS / levels):04d}>" for part in parts)


def parse_places(text: str) -> list[tuple[float, float]]:
    """Every place of a text, (y, x) as fractions; empty where there is none."""
    return [
        (round((int(y) + 0.5) / LOCATIONS, 6), round((int(x) + 0.5) / LOCATIONS, 6))
        for y, x in _PLACE.findall(text)
        if int(y) < LOCATIONS and int(x) < LOCATIONS
    ]
