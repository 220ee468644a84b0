"""What is remembered of sessions has an end."""

import numpy as np

from rt2_jax.actions.policy import Observation
from rt2_jax.inference import history
from rt2_jax.inference.history import FrameHistory


def test_pictures_of_many_sessions_are_bounded_in_bytes_and_the_oldest_go(monkeypatch):
    monkeypatch.setattr(history, "MAX_BYTES", 10 * 48)
    remembered = FrameHistory([("front", 0), ("front", -1)])

    def see(session):
        return Observation({"front": np.zeros((4, 4, 3), np.uint8)}, "go", session=session)

    for i in range(30):
        remembered.remember([see(str(i))])
        remembered.remember([see(str(i))])
    known = [i for i in range(30) if ("front", -1) in remembered.images(see(str(i)))]
    assert known == list(range(20, 30))
    for i in range(20, 30):
        remembered.forget(str(i))
    assert remembered._bytes == 0
