"""Executing answers of several actions: one after the other, ahead of time, or blended."""

from __future__ import annotations

from typing import List, Optional, Tuple

import numpy as np

from rt2_jax.actions.space import ActionSpace
from rt2_jax.client.blending import Blend

MODES = ("sync", "prefetch", "ensemble")


class ActionChunks:
    """Which action is next, of answers that hold several.

    Positions count actions that were executed, not time: row j of an answer is meant for j actions
    after the picture it was made of. Actions executed while the answer was on its way stand in for
    its first rows, which are left out; while the robot held still nothing is left out.

    - `sync`: the next answer is asked for when this one is used up; the robot waits for it.
    - `prefetch`: asked for while `ahead` actions are left, and executed from its arrival on.
    - `ensemble`: asked for at every action; all answers that hold a row for this position are
      averaged with weights exp(-decay i), i = 0 for the oldest (ACT, arXiv 2304.13705, section
      IV-C, with its decay of 0.01), each field as its kind allows: see `Blend`.

    Args:
      action_space: of the answers.
      mode: one of the three.
      execute: at most so many actions of an answer; None for all.
      ahead: of `prefetch`: actions that are left when the next answer is asked for. At least the
        latency in actions: ceil(latency x control rate).
      decay: of `ensemble`.

    Attributes:
      executed: actions that were given out.
      outdated: answers that came after all of their rows were due.
      row: of the action given last, within its answer; the newest one's in `ensemble`. A robot
        that adds to the state at the start of a chunk notes that state at row 0.

    Raises:
      ValueError: an option that is none, or fields that this mode would get wrong.
    """

    def __init__(
        self,
        action_space: ActionSpace,
        mode: str = "sync",
        execute: Optional[int] = None,
        ahead: int = 1,
        decay: float = 0.01,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode: found {mode!r}, expected one of {list(MODES)}")
        if execute is not None and execute < 1:
            raise ValueError(f"execute: found {execute}, expected 1 or more, or None for all")
        if mode == "prefetch":
            if ahead < 1:
                raise ValueError(f"ahead: found {ahead}, expected 1 or more actions")
            _refuse_chunk_start(action_space)
        self._space = action_space
        self._mode = mode
        self._execute = execute
        self._ahead = ahead
        self._blend = Blend(action_space, decay) if mode == "ensemble" else None
        self.executed = 0
        self.outdated = 0
        self.row = 0
        self._chunks: List[Tuple[int, np.ndarray]] = []  # position of the first row, rows; by age

    @property
    def left(self) -> int:
        """Actions that are there already."""
        return max((first + len(rows) for first, rows in self._chunks), default=0) - self.executed

    @property
    def wants(self) -> bool:
        """Whether to ask now, if nothing is on its way."""
        if self._mode == "ensemble":
            return True
        return self.left <= (self._ahead if self._mode == "prefetch" else 0)

    def clear(self) -> None:
        """Forgets all answers: an episode begins."""
        self._chunks = []
        self.executed = self.outdated = self.row = 0

    def add(self, actions: np.ndarray, asked_at: int) -> None:
        """Takes an answer.

        Args:
          actions: float32 [K, D].
          asked_at: `executed` when its picture was taken.

        Raises:
          ValueError: not of this space, or asked for in the future.
        """
        if actions.ndim != 2 or actions.shape[1] != self._space.dimension or not len(actions):
            raise ValueError(
                f"actions: found shape {list(actions.shape)}, expected [K, {self._space.dimension}]"
            )
        if asked_at > self.executed:
            raise ValueError(f"asked_at: found {asked_at}, only {self.executed} were executed")
        rows = actions[: self._execute]
        if asked_at + len(rows) <= self.executed:
            self.outdated += 1
            return
        kept = self._chunks if self._mode == "ensemble" else []
        self._chunks = [*kept, (asked_at, rows)]

    def next(self) -> Optional[np.ndarray]:
        """The action to execute now, float32 [D]; None when there is none: the robot holds."""
        self._chunks = [each for each in self._chunks if each[0] + len(each[1]) > self.executed]
        if not self._chunks:
            return None
        rows = np.stack([rows[self.executed - first] for first, rows in self._chunks])
        self.row = self.executed - self._chunks[-1][0]
        self.executed += 1
        return rows[-1] if self._blend is None else self._blend(rows)


def _refuse_chunk_start(space: ActionSpace) -> None:
    fields = [field.name for field in space.fields if field.reference == "chunk_start"]
    if fields:
        raise ValueError(
            f"mode 'prefetch' with action space {space.name!r}: fields {fields} are added to the "
            "state at the start of their chunk, which is past when its first rows are left out; "
            "use mode 'sync'"
        )
