"""The earlier pictures of each session, for models that see more than the newest frame."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from rt2_jax.actions.policy import Observation
from rt2_jax.data.model_inputs import ImageSlot

MAX_SESSIONS = 1024
MAX_BYTES = 2**30
"""Of all pictures; the session that was longest without an observation is forgotten first."""

_Frames = dict[int, Mapping[str, np.ndarray]]


class FrameHistory:
    """Fills image slots such as ("front", -1) with the frame of the session's earlier step.

    A step that was never observed (before the first one, or in the middle of an executed chunk)
    leaves its slot empty, as an episode's beginning does in training. Without step numbers every
    observation counts as one step. A session is begun anew by `forget`, and by a step number below
    the last one.

    Args:
      slots: of the model.
    """

    def __init__(self, slots: Sequence[ImageSlot]) -> None:
        self._slots = tuple(slots)
        self._oldest = min(time for _, time in slots)
        self._sessions: OrderedDict[str | None, _Frames] = OrderedDict()
        self._bytes = 0

    def forget(self, session: str | None) -> None:
        """Forgets a session's frames."""
        self._bytes -= _size(self._sessions.pop(session, {}))

    def images(self, observation: Observation) -> dict[ImageSlot, np.ndarray]:
        """The pictures of the model's slots for this observation; nothing is remembered yet."""
        step, frames = self._frames(observation)
        frames = {**frames, step: observation.images}
        return {
            (view, time): frames[step + time][view]
            for view, time in self._slots
            if step + time in frames and view in frames[step + time]
        }

    def remember(self, observations: Sequence[Observation]) -> None:
        """Keeps these frames for the steps to come, once they are answered."""
        if not self._oldest:
            return
        for observation in observations:
            step, frames = self._frames(observation)
            # A robot's camera may write into the same buffer again.
            copies = {view: image.copy() for view, image in observation.images.items()}
            kept = {number: each for number, each in frames.items() if number > step + self._oldest}
            self.forget(observation.session)
            self._sessions[observation.session] = {**kept, step: copies}
            self._bytes += _size(self._sessions[observation.session])
        while len(self._sessions) > MAX_SESSIONS or self._bytes > MAX_BYTES:
            self.forget(next(iter(self._sessions)))

    def check_sessions(self, observations: Sequence[Observation]) -> None:
        """Refuses two observations of one session in a batch: neither could know the other.

        Raises:
          ValueError: the message names the session.
        """
        sessions = [observation.session for observation in observations]
        twice = [session for session in sessions if sessions.count(session) > 1]
        if self._oldest and twice:
            raise ValueError(
                f"{sessions.count(twice[0])} observations of session {twice[0]!r} in one batch, "
                "but the model sees earlier frames: give every robot a session of its own, and "
                "ask one step after the other"
            )

    def _frames(self, observation: Observation) -> tuple[int, _Frames]:
        """The number of this step, and the frames before it."""
        frames = self._sessions.get(observation.session, {})
        last = max(frames, default=-1)
        step = last + 1 if observation.step is None else observation.step
        return step, {} if step < last else frames


def _size(frames: _Frames) -> int:
    return sum(image.nbytes for pictures in frames.values() for image in pictures.values())
