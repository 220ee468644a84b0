"""`rt2 bench serve --overhead`: what a server adds to a call of its policy, over loopback."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rt2_jax._text_table import aligned
from rt2_jax.actions.policy import Observation
from rt2_jax.benchmarks.rounds import spread
from rt2_jax.benchmarks.serve_robots import make_picture
from rt2_jax.benchmarks.served_process import started
from rt2_jax.benchmarks.stand_in import StandIn
from rt2_jax.client import RemotePolicy

AIM_MS = 1.0
"""Added at most, as the median over the rounds."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
      rounds: in which both sides have their turn.
      requests: of a turn.
      picture: (height, width).

    Raises:
      ValueError: a number below 1.
    """

    rounds: int = 30
    requests: int = 50
    picture: tuple[int, int] = (224, 224)

    def __post_init__(self) -> None:
        for name in ("rounds", "requests"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected 1 or more")


def measure(settings: Settings, report: Callable[[str], None]) -> dict[str, Any]:
    """Asks a constant policy in this process and behind a server, in turn; plain JSON.

    The server is a process of its own and the robot the project's own client. A round's figure is
    the median of its requests at the server, less that of its calls.

    Args:
      settings: how much.
      report: called with a line on what happens.
    """
    policy = StandIn()
    picture = make_picture(settings.picture, 0)
    seen = Observation({"front": picture}, "pick up the red cube", session="overhead")
    load = os.getloadavg()[0]
    rounds = []
    with (
        started(["-m", "rt2_jax.benchmarks.stand_in", "constant"]) as (url, _),
        RemotePolicy(url) as robot,
    ):
        report(f"{settings.rounds} rounds of {settings.requests} requests and calls")
        _milliseconds(lambda: robot.infer(seen), 100)
        for number in range(settings.rounds):
            timings: list[dict[str, float]] = []

            def ask(timings: list[dict[str, float]] = timings) -> None:
                timings.append(robot.infer(seen)["server_timing"])

            sides: list[tuple[str, Callable[[], Any]]] = [
                ("served", ask),
                ("called", lambda: policy.infer_batch([seen])),
            ]
            found = {
                name: _milliseconds(call, settings.requests)
                for name, call in sides[:: -1 if number % 2 else 1]
            }
            found["in_server"] = statistics.median(
                timing["prev_total_ms"] for timing in timings if "prev_total_ms" in timing
            )
            found["added"] = found["served"] - found["called"]
            rounds.append(found)
    return {
        "settings": dataclasses.asdict(settings),
        "load_average": {"before": load, "after": os.getloadavg()[0]},
        "rounds": rounds,
        "ms": {name: spread([each[name] for each in rounds]) for name in rounds[0]},
        "aim_ms": AIM_MS,
    }


def table(found: dict[str, Any]) -> str:
    """What `measure` found, for people."""
    words = {
        "served": "asked at the server",
        "in_server": "  of it from the frame's arrival to the answer's leaving",
        "called": "called in this process",
        "added": "added by the server",
    }
    rows = [["ms, medians of the rounds", "", "median", "least", "greatest"]]
    for name, text in words.items():
        values = (found["ms"][name][each] for each in ("median", "least", "greatest"))
        aim = f"aim: at most {found['aim_ms']:g}" if name == "added" else ""
        rows.append([text, aim, *(f"{value:.3f}" for value in values)])
    return aligned(rows)


def _milliseconds(call: Callable[[], Any], count: int) -> float:
    """Median of so many calls."""
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times)
