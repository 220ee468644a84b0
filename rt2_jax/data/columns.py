"""Columns of an RLDS episode: a field, a part of it, and named transforms, written as text.

    action[-1:] | clip 0 1 | invert

is the last number of the steps' `action`, clipped to 0..1, subtracted from 1. A path names the
fields below a step (`observation/state`); `zeros N` and `ones N` fill what a data set doesn't have.
`TRANSFORMS` is the whole vocabulary. A column sees its whole episode, because some transforms look
ahead or back.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

_FIELD = re.compile(r"(?P<path>[^\[\]|\s]+)(?:\[(?P<start>-?\d*):(?P<stop>-?\d*)\])?")
_CONSTANTS: Mapping[str, float] = {"zeros": 0.0, "ones": 1.0}


@dataclass(frozen=True)
class Column:
    """A parsed column.

    Attributes:
      text: as it was written, for messages.
      path: of the field below a step; "" for a constant.
      part: of the field's numbers.
      constant: (value, width) of a column that no field holds.
      transforms: what is done to it, in order.
    """

    text: str
    path: str
    part: slice
    constant: tuple[float, int] | None
    transforms: tuple[Callable[[tf.Tensor], tf.Tensor], ...]

    def numbers(self, steps: Mapping[str, Any]) -> tf.Tensor:
        """Float32 [T, D] of an episode.

        Args:
          steps: path -> tensor [T] or [T, D] of each field that is read.
        """
        if self.constant is not None:
            value, width = self.constant
            length = tf.shape(next(iter(steps.values())))[0]
            return tf.fill([length, width], value)
        field = tf.cast(steps[self.path], tf.float32)
        column = (field if field.shape.rank == 2 else field[:, tf.newaxis])[:, self.part]
        for transform in self.transforms:
            column = transform(column)
        return column

    def texts(self, steps: Mapping[str, Any]) -> tf.Tensor:
        """String [T] of an episode."""
        column = steps[self.path]
        for transform in self.transforms:
            column = transform(column)
        return column


def parse_column(text: str) -> Column:
    """Reads `path[start:stop] | transform ... | ...`.

    Raises:
      ValueError: no such form, an unknown transform (the message lists those that are known) or a
        wrong number of numbers behind one.
    """
    head, *rest = (piece.strip() for piece in text.split("|"))
    name, _, width = head.partition(" ")
    transforms = tuple(_parse_transform(text, piece) for piece in rest)
    if name in _CONSTANTS and width.isdigit() and not rest:
        return Column(text, "", slice(None), (_CONSTANTS[name], int(width)), ())
    match = _FIELD.fullmatch(head)
    if match is None:
        raise ValueError(
            f"column {text!r}: {head!r} is no field; expected PATH, PATH[START:STOP], zeros N or "
            "ones N"
        )
    start, stop = (int(match[end]) if match[end] else None for end in ("start", "stop"))
    return Column(text, match["path"], slice(start, stop), None, transforms)


def _parse_transform(column: str, text: str) -> Callable[[tf.Tensor], tf.Tensor]:
    name, *words = text.split() or [""]
    if name not in TRANSFORMS:
        raise ValueError(
            f"column {column!r}: transform {name!r} is not known; known: {sorted(TRANSFORMS)}"
        )
    transform = TRANSFORMS[name]
    wanted = list(inspect.signature(transform).parameters)[1:]
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) != len(wanted) or len(words) != len(wanted):
        raise ValueError(
            f"column {column!r}: {name} takes {len(wanted)} number(s) {wanted}, found {words}"
        )
    return lambda tensor: transform(tensor, *numbers)


def clip(column: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Values below low become low, those above high become high."""
    return tf.clip_by_value(column, low, high)


def scale(column: tf.Tensor, factor: float) -> tf.Tensor:
    """Times a number; -1 negates."""
    return column * factor


def invert(column: tf.Tensor) -> tf.Tensor:
    """1 - x: what was 1 for closed becomes 1 for open."""
    return 1 - column


def absolute_gripper(column: tf.Tensor) -> tf.Tensor:
    """The gripper's state, 1 open and 0 closed, of its changes: over 0.1 closes, under -0.1 opens.

    A step that changes nothing keeps the state. Before the first change the state is the opposite
    of what that change leads to; without any change it is open.
    """
    changes = column[:, 0]
    events = tf.where(tf.abs(changes) > 0.1)[:, 0]
    states = tf.cast(tf.gather(changes, events) < 0, tf.float32)
    # In front of them stands the state before the first change; open, where there is none.
    before = 1 - tf.concat([states, tf.zeros([1])], axis=0)[:1]
    steps = tf.range(tf.size(changes, tf.int64))
    last = tf.searchsorted(events, steps, side="right")
    return tf.gather(tf.concat([before, states], axis=0), last)[:, tf.newaxis]


def binary_gripper(column: tf.Tensor) -> tf.Tensor:
    """1 over 0.95 and 0 under 0.05; what lies between takes the value that is reached after it.

    Where an episode ends between the two, its last steps keep the last recorded value.
    """
    values = column[:, 0]
    decided = tf.where((values > 0.95) | (values < 0.05))[:, 0]
    at = tf.range(tf.size(values, tf.int64))
    following = tf.searchsorted(decided, at, side="left")
    states = tf.cast(tf.gather(values, decided) > 0.95, tf.float32)
    return tf.gather(tf.concat([states, values[-1:]], axis=0), following)[:, tf.newaxis]


def difference(column: tf.Tensor) -> tf.Tensor:
    """The next step's value minus this one's; 0 at the last step, which has no next."""
    return tf.concat([column[1:] - column[:-1], tf.zeros_like(column[-1:])], axis=0)


def euler_from_quaternion(column: tf.Tensor) -> tf.Tensor:
    """Roll, pitch, yaw, rad [T, 3], of quaternions x, y, z, w [T, 4].

    They turn about the fixed axes x, then y, then z (`euler_xyz`). At a pitch of a right angle,
    where roll and yaw are one, yaw is 0.
    """
    x, y, z, w = tf.unstack(column / tf.norm(column, axis=1, keepdims=True), axis=1)
    sine = 2 * (w * y - x * z)
    pitch = tf.asin(tf.clip_by_value(sine, -1.0, 1.0))
    roll = tf.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    yaw = tf.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    # Where cos(pitch) vanishes only their sum or difference is known.
    locked = tf.abs(sine) > 1 - 1e-6
    both = 2 * tf.atan2(x, w)
    return tf.stack(
        [tf.where(locked, both, roll), pitch, tf.where(locked, 0.0, yaw)],
        axis=1,
    )


def decode_characters(column: tf.Tensor) -> tf.Tensor:
    """Texts [T] of character codes int32 [T, N] that are filled up with zeros (Language-Table)."""
    texts = tf.strings.unicode_encode(column, "UTF-8")
    return tf.strings.regex_replace(texts, "\\x00+$", "")


TRANSFORMS: Mapping[str, Callable[..., tf.Tensor]] = {
    transform.__name__: transform
    for transform in (
        absolute_gripper,
        binary_gripper,
        clip,
        decode_characters,
        difference,
        euler_from_quaternion,
        invert,
        scale,
    )
}
"""Named transforms: from [T, D] to [T, D'] (`decode_characters`: to strings [T])."""
