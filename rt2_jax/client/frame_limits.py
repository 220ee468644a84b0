"""A msgpack frame is walked through before anything is made of it: how many values, how deep."""

from __future__ import annotations

from typing import List

MOST_VALUES = 100_000
"""Of a frame, maps, arrays, keys and what is in them; a request has some dozens."""

DEEPEST = 32

# The first byte of a value (https://github.com/msgpack/msgpack/blob/master/spec.md) -> how many
# bytes follow it that are its length, and how many that are the value's own.
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FIXED.update({0xC0: 0, 0xC2: 0, 0xC3: 0, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17})
_MANY = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}  # arrays and maps


def check_frame(frame: bytes) -> None:
    """Refuses a frame that would become far more than its own size in memory.

    Raises:
      ValueError: too many values, too deep, cut off, or with bytes left over.
    """
    size = len(frame)
    at = values = 0
    left: List[int] = [1]  # values that are still to come, at each depth
    while left:
        if not left[-1]:
            left.pop()
            continue
        left[-1] -= 1
        values += 1
        if at >= size:
            raise ValueError("the frame is cut off")
        kind = frame[at]
        at += 1
        inside = 0
        if kind <= 0x7F or kind >= 0xE0:  # a small number
            continue
        if 0xA0 <= kind <= 0xBF:
            at += kind & 0x1F
            continue
        if kind in _FIXED:
            at += _FIXED[kind]
            continue
        if kind in _LENGTHS:
            width = _LENGTHS[kind]
            at += width + int.from_bytes(frame[at : at + width], "big") + (0xC7 <= kind <= 0xC9)
            continue
        if kind in _MANY:
            width = _MANY[kind]
            inside = int.from_bytes(frame[at : at + width], "big")
            at += width
        elif kind != 0xC1:
            inside = kind & 0x0F
        else:
            raise ValueError("0xc1 begins no value")
        if 0x80 <= kind <= 0x8F or kind >= 0xDE:
            inside *= 2
        left.append(inside)
        if values + inside > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values")
        if len(left) > DEEPEST:
            raise ValueError(f"values in values, more than {DEEPEST} deep")
    if at != size:
        raise ValueError("the frame is cut off" if at > size else f"{size - at} bytes too many")
