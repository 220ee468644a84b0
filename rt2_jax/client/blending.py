"""The average of several predictions of one action, each field as its kind allows."""

from __future__ import annotations

from typing import Callable, List, Tuple

import numpy as np

from rt2_jax.actions.space import ROTATIONS, ActionSpace
from rt2_jax.client.rotations import TO_MATRIX, from_matrix

_WHY = {
    "previous_target": "is added to the previous target, and each answer assumed targets of its "
    "own before it",
    "current_state": "is added to the measured state, and each answer assumed another one",
    "chunk_start": "is added to the state at the start of its own chunk",
    "as_recorded": "has a reference that the data set does not say",
}


class Blend:
    """Averages rows of one position, of answers by age, the oldest first.

    - absolute numbers: the weighted mean.
    - absolute rotations: the rotation nearest to all (the projection of the mean of their
      matrices), in the representation of the field; quaternions of either sign, and angles on
      both sides of pi, come out right.
    - grippers and discrete fields (terminate): the newest answer's, for a half-closed hand is what
      nobody predicted.
    - what is relative to anything: refused, for means of deltas undo what newer ones corrected.

    Args:
      action_space: of the rows.
      decay: weights are exp(-decay i), i = 0 for the oldest.

    Raises:
      ValueError: fields that cannot be averaged, and why.
    """

    def __init__(self, action_space: ActionSpace, decay: float) -> None:
        if not decay >= 0:
            raise ValueError(f"decay: found {decay}, expected 0 or more")
        self._decay = decay
        self._parts: List[Tuple[slice, Callable[[np.ndarray, np.ndarray], np.ndarray]]] = []
        start = 0
        while start < action_space.dimension:
            field = action_space.fields[start]
            size = ROTATIONS[field.rotation] if field.rotation else 1
            average: Callable[[np.ndarray, np.ndarray], np.ndarray]
            if field.levels is not None or field.polarity is not None:
                average = _newest
            elif field.reference != "absolute" or field.rotation == "as_recorded":
                why = (
                    _WHY[field.reference]
                    if field.reference != "absolute"
                    else ("is a rotation in a representation that the data set does not say")
                )
                raise ValueError(
                    f"mode 'ensemble' with action space {action_space.name!r}: field "
                    f"{field.name!r} {why}, so predictions of it cannot be averaged; use mode "
                    "'prefetch' or 'sync'"
                )
            elif field.rotation is not None:
                average = _rotation(field.rotation)
            else:
                average = _mean
            self._parts.append((slice(start, start + size), average))
            start += size

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """The average, float32 [D], of rows float32 [N, D]."""
        weights = np.exp(-self._decay * np.arange(len(rows)))
        weights /= weights.sum()
        parts = [average(rows[:, part].astype(float), weights) for part, average in self._parts]
        return np.concatenate(parts).astype(np.float32)


def _mean(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ rows


def _newest(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return rows[-1]


def _rotation(kind: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def average(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        mean = sum(w * TO_MATRIX[kind](row) for w, row in zip(weights, rows))
        left, _, right = np.linalg.svd(mean)
        turn = left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
        return from_matrix(kind, turn, like=rows[-1])

    return average
