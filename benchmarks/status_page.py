"""What the status page costs: on the event loop for each request, and off it for each poll.

    python benchmarks/status_page.py [--rounds 20] [--sessions 32]

Medians over the rounds; nothing is compared.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from rt2_jax.actions.policy import Observation
from rt2_jax.serving.batching import Answer
from rt2_jax.serving.exchange import Exchange
from rt2_jax.serving.requests import Request
from rt2_jax.serving.status import LiveSessions
from rt2_jax.serving.status.thumbnails import thumbnail

_REQUESTS = 2000


def exchanges(sessions: int) -> list[Exchange]:
    """Answered requests of so many robots, each with two frames of 224 x 224."""
    rng = np.random.default_rng(0)
    frames = {view: rng.integers(0, 256, (224, 224, 3), np.uint8) for view in ("front", "wrist")}
    result = {
        "actions": np.zeros((1, 8), np.float32),
        "tokens": np.arange(8),
        "levels": np.zeros((1, 8), np.int32),
        "plan": "pick up the red cube",
        "score": -1.0,
    }
    done = []
    for number in range(_REQUESTS):
        robot = number % sessions
        exchange = Exchange(f"connection-{robot}", session=f"robot {robot}", instruction="go")
        exchange.request = Request(Observation(frames, "go"), number, None, ())
        exchange.answer = Answer(result, 0.001, 0.02, 4)
        done.append(exchange.end("answered"))
    return done


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--sessions", type=int, default=32)
    args = parser.parse_args()
    done = exchanges(args.sessions)
    frame = done[0].request.observation.images["front"] if done[0].request else None
    assert frame is not None
    notes, polls, pictures = [], [], []
    live = LiveSessions()
    for _ in range(args.rounds):
        begin = time.perf_counter()
        for exchange in done:
            live.note(exchange)
        noted = time.perf_counter()
        live.traffic.summary(live.now())
        for session in live.sessions():
            session.to_json(live.now())
        polled = time.perf_counter()
        thumbnail(frame)
        notes.append((noted - begin) / len(done))
        polls.append(polled - noted)
        pictures.append(time.perf_counter() - polled)
    print(f"a request, on the event loop: {1e6 * statistics.median(notes):.1f} us")
    print(f"a poll, {args.sessions} sessions, off it: {1e3 * statistics.median(polls):.2f} ms")
    print(f"a picture of 224 x 224, off it: {1e3 * statistics.median(pictures):.2f} ms")


if __name__ == "__main__":
    main()
