"""What the clients of other systems call their cameras and their robot's state.

The table is that of `docs/wires.md`; the names are openpi's (DROID, LIBERO, ALOHA, Bridge),
OpenVLA's and OpenVLA-OFT's, those of MolmoAct2's and GR00T's `/act`, and vla-eval's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Key of a request, or name below `images` -> which camera it is: words that its view may be called.
FIRST = "first"
CAMERAS = {
    "observation/image": FIRST,
    "observation/exterior_image_1_left": FIRST,
    "observation/wrist_image": "wrist",
    "observation/wrist_image_left": "wrist",
    "image": FIRST,
    "full_image": FIRST,
    "wrist_image": "wrist",
    "left_wrist_image": "left wrist",
    "right_wrist_image": "right wrist",
    "top_cam": FIRST,
    "left_cam": "left",
    "right_cam": "right",
    "cam_high": FIRST,
    "cam_low": "low",
    "cam_left_wrist": "left wrist",
    "cam_right_wrist": "right wrist",
}
STATE = ("state", "observation/state", "states")
JOINED_STATE = ("observation/joint_position", "observation/gripper_position")
"""DROID's: the two make one state, in this order."""


def view_of(name: str, views: Sequence[str], cameras: Mapping[str, str]) -> str | None:
    """The policy's view that a client's camera is; None where it is none, or cannot be told.

    Args:
      name: the client's, a key of a request or below `images`.
      views: of the policy, the main one first.
      cameras: a client's name -> view, as whoever serves the policy says it; it goes before all.
    """
    bare = name[12:] if name.startswith("observation/") else name
    for each in (name, bare):
        if each in cameras:
            return cameras[each]
        if each in views:
            return each
    which = CAMERAS.get(name, "wrist" if "wrist" in name.lower() else None)
    if which == FIRST:
        return views[0] if views else None
    if which is None:
        return None
    others = list(views[1:])
    left = [view for view in others if all(word in view.lower() for word in which.split())]
    if not left and which == "wrist" and len(others) == 1:
        left = others  # there is only one that it can be
    return left[0] if len(left) == 1 else None


def known_names(views: Sequence[str], cameras: Mapping[str, str]) -> dict[str, str]:
    """Every name of a camera that is understood -> the policy's view."""
    names = {*CAMERAS, *cameras}
    found = {name: view_of(name, views, cameras) for name in sorted(names)}
    return {name: view for name, view in found.items() if view is not None}


def may_be_picture(name: str, value: Any) -> bool:
    """Whether a key of a request that no table knows holds a wrist camera's picture, as OFT's."""
    picture = isinstance(value, bytes) or getattr(value, "ndim", 0) == 3
    return picture and "wrist" in name.lower()


def as_pixels(value: Any, where: str) -> Any:
    """A picture as uint8 [H, W, 3], as openpi's policies take it; what is none stays as it is.

    Args:
      value: uint8, or float from 0 to 1; [H, W, 3] or [3, H, W].
      where: for the message.

    Raises:
      ValueError: floats that are not from 0 to 1.
    """
    if not isinstance(value, np.ndarray) or value.ndim != 3:
        return value
    if value.dtype.kind == "f" and value.size:
        low, high = value.min(), value.max()
        if not (low >= 0 and high <= 1):  # true of NaN, too
            raise ValueError(
                f"{where}: found floats from {low:g} to {high:g}, expected 0 to 1, or uint8 from "
                "0 to 255: it cannot be told how they are scaled"
            )
        # openpi cuts off, which makes 99 of 100 / 255: the pixels that were meant come back here.
        value = np.rint(255 * value).astype(np.uint8)
    if value.shape[0] == 3 and value.shape[2] != 3:
        value = np.ascontiguousarray(value.transpose(1, 2, 0))
    return value


def state_of(frame: Mapping[str, Any], wanted: bool) -> tuple[Any, list[str]]:
    """The state in a request, or None; and the keys of others that are not read beside it.

    Args:
      frame: the request.
      wanted: whether the policy reads a state.
    """
    given = [key for key in STATE if frame.get(key) is not None]
    joined = [key for key in JOINED_STATE if frame.get(key) is not None]
    if given:
        return frame[given[0]], [*given[1:], *joined]
    if not joined:
        return None, []
    if not wanted:
        return None, joined
    parts = [np.atleast_1d(np.asarray(frame[key])) for key in joined]
    for key, part in zip(joined, parts, strict=True):
        if part.dtype.kind not in "fiu" or part.ndim != 1:
            raise TypeError(
                f"request: {key}: found {part.dtype} of shape {list(part.shape)}, expected numbers "
                "[n]"
            )
    return np.concatenate([part.astype(np.float32) for part in parts]), []
