"""A policy whose answers can be computed by hand, behind a real server."""

import threading
import time

import numpy as np
import pytest

from rt2_jax.actions.policy import Observation
from rt2_jax.actions.space import rt2_action_space
from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.server import PolicyServer

SPACE = rt2_action_space(
    "toy",
    translation_bound_m=0.05,
    rotation_bound_rad=0.25,
    gripper_polarity="high_is_open",
    control_rate_hz=5,
)


class Toy:
    """Moves along x by the mean of the picture / 10,000; says what it was asked."""

    def __init__(self, seconds=0.0, views=("front", "wrist"), horizon=1, **metadata):
        self.seconds = seconds
        self.horizon = horizon
        self.asked = []
        self.batches = []
        self.forgotten = []
        self.metadata = {
            "action_space": SPACE.to_json(),
            "action_space_hash": SPACE.hash,
            "codec_hash": "c",
            "views": list(views),
            "camera_size": None,
            "prompt": "{text}",
            "embodiment": "toy",
            **metadata,
        }

    def reset(self, session=None):
        self.forgotten.append(session)

    def infer_batch(self, observations):
        self.batches.append([each.session for each in observations])
        time.sleep(self.seconds)
        words = [each.instruction for each in observations]
        for fault, error in (
            ("unreadable", ValueError("observation: cannot be read")),
            ("broken", RuntimeError("the weights are gone")),
            ("stop", StopIteration()),
        ):
            if fault in words:
                raise error
        return [self._answer(each) for each in observations]

    def answer(self, questions):
        time.sleep(self.seconds)
        return [
            [f"{each.prompt}: {0 if each.picture is None else each.picture.mean():g}"]
            * each.num_samples
            for each in questions
        ]

    def _answer(self, observation):
        self.asked.append(observation)
        action = np.zeros((self.horizon, 8), np.float32)
        action[:, 0] = observation.instruction != "end"
        action[:, 1] = next(iter(observation.images.values())).mean() / 10_000
        action[:, 2] = np.arange(self.horizon) / 100
        if observation.instruction == "nan":
            action[0, 1] = np.nan
        if observation.instruction == "double":
            action = action.astype(np.float64)
        unused = ("state",) if observation.state is not None else ()
        extra = {"thing": {1, 2}} if observation.instruction == "unsendable" else {}
        return {"actions": action, "unused": unused, **extra}


@pytest.fixture
def serve():
    """Serves a policy and gives (server, URL); ended with the test."""
    started = []

    def start(policy=None, **options):
        server = PolicyServer(policy or Toy(), port=0, options=ServerOptions(**options))
        context = server.in_thread()
        started.append(context)
        return server, context.__enter__()

    yield start
    for context in started:
        context.__exit__(None, None, None)


def seen(value=100, instruction="go", **fields):
    picture = np.full((4, 6, 3), value, np.uint8)
    return Observation({"front": picture, "wrist": picture}, instruction, **fields)


def together(count, do):
    """Runs `do(i)` in as many threads at once; their results, or what they raised."""
    results = [None] * count
    barrier = threading.Barrier(count)

    def run(i):
        barrier.wait()
        try:
            results[i] = do(i)
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results
