"""Rotations of an action's fields as matrices, and back; angles in radians."""

from __future__ import annotations

from typing import Callable, Dict

import numpy as np


def _axis(index: int, angle: float) -> np.ndarray:
    """The rotation by an angle about x, y or z."""
    turn = np.eye(3)
    i, j = [k for k in range(3) if k != index]
    sign = -1.0 if index == 1 else 1.0
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[i, j], turn[j, i] = -sign * np.sin(angle), sign * np.sin(angle)
    return turn


def _of_vector(vector: np.ndarray) -> np.ndarray:
    """Rodrigues' formula."""
    angle = float(np.linalg.norm(vector))
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    # sin(a)/a and (1 - cos(a))/a^2, also at 0
    first, second = np.sinc(angle / np.pi), 0.5 * np.sinc(angle / 2 / np.pi) ** 2
    return np.eye(3) + first * cross + second * cross @ cross


def _of_quaternion(wxyz: np.ndarray) -> np.ndarray:
    w, x, y, z = wxyz / np.linalg.norm(wxyz)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _of_columns(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two columns made orthonormal (Zhou et al., arXiv 1812.07035, section 4.2)."""
    x = first / np.linalg.norm(first)
    y = second - (x @ second) * x
    y = y / np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=1)


TO_MATRIX: Dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "single_axis": lambda a: _axis(2, a[0]),
    "rotation_vector": _of_vector,
    # About the fixed axes, in the order of the letters.
    "euler_xyz": lambda a: _axis(2, a[2]) @ _axis(1, a[1]) @ _axis(0, a[0]),
    "euler_zyx": lambda a: _axis(0, a[2]) @ _axis(1, a[1]) @ _axis(2, a[0]),
    "quaternion_wxyz": _of_quaternion,
    "quaternion_xyzw": lambda a: _of_quaternion(np.roll(a, 1)),
    "rot6d_columns": lambda a: _of_columns(a[:3], a[3:]),
    "rot6d_rows": lambda a: _of_columns(a[0::2], a[1::2]),
}
"""Representation -> its numbers to a rotation matrix [3, 3]; the columns are the turned axes."""


def from_matrix(kind: str, turn: np.ndarray, like: np.ndarray) -> np.ndarray:
    """A rotation matrix in a representation.

    Args:
      kind: a key of `TO_MATRIX`.
      turn: [3, 3].
      like: numbers of the same kind; of several that mean one rotation, those next to it are
        chosen: the sign of a quaternion, full turns of an angle.
    """
    if kind == "rot6d_columns":
        return np.concatenate([turn[:, 0], turn[:, 1]])
    if kind == "rot6d_rows":
        return turn[:, :2].reshape(-1)
    if kind == "single_axis":
        return _next_to(np.array([np.arctan2(turn[1, 0], turn[0, 0])]), like)
    if kind == "euler_xyz":
        return _next_to(_euler(turn, 1), like)
    if kind == "euler_zyx":
        return _next_to(_euler(turn[::-1, ::-1], -1), like)
    wxyz = _quaternion(turn)
    if kind == "rotation_vector":
        wxyz = wxyz if wxyz[0] >= 0 else -wxyz
        length = float(np.linalg.norm(wxyz[1:]))
        if length < 1e-12:
            return np.zeros(3)
        angle = 2 * np.arctan2(length, wxyz[0])
        axis = wxyz[1:] / length
        # The same rotation is a longer way round the other way: the one next to `like`.
        vectors = [axis * angle, axis * (angle - 2 * np.pi)]
        return min(vectors, key=lambda vector: float(np.linalg.norm(vector - like)))
    numbers = wxyz if kind == "quaternion_wxyz" else np.roll(wxyz, -1)
    return numbers if numbers @ like >= 0 else -numbers


def _next_to(angles: np.ndarray, like: np.ndarray) -> np.ndarray:
    return angles + 2 * np.pi * np.round((like - angles) / (2 * np.pi))


def _euler(turn: np.ndarray, sign: int) -> np.ndarray:
    """Angles about the fixed axes x, y, z; with `sign` -1 of axes in reverse order."""
    pitch = np.arcsin(np.clip(-sign * turn[2, 0], -1.0, 1.0))
    first = np.arctan2(sign * turn[2, 1], turn[2, 2])
    last = np.arctan2(sign * turn[1, 0], turn[0, 0])
    return np.array([first, pitch, last])


def _quaternion(turn: np.ndarray) -> np.ndarray:
    """w, x, y, z: the eigenvector of the largest eigenvalue (Bar-Itzhack, 2000)."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = turn
    key = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, yx + xy, zx + xz],
            [xz - zx, yx + xy, yy - xx - zz, zy + yz],
            [yx - xy, zx + xz, zy + yz, zz - xx - yy],
        ]
    )
    return np.linalg.eigh(key)[1][:, -1]
