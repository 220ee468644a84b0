"""`rt2 bench start`: from a server's start until it is ready, cold and warm."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rt2_jax._text_table import aligned
from rt2_jax.benchmarks.processes import cpu_seconds
from rt2_jax.benchmarks.rounds import spread

SIDES = ("no cache", "cold", "warm")
_READY = re.compile(r"ready in [\d.]+ s: ([\d.]+) s weights, ([\d.]+) s programs")


@dataclass(frozen=True)
class Settings:
    """What is started how often.

    Attributes:
      checkpoint: a checkpoint, a run's folder, or `pretrained:NAME`.
      rounds: starts of each kind.
      batch_sizes: as `rt2 serve` takes them.

    Raises:
      ValueError: less than one round.
    """

    checkpoint: str
    rounds: int = 3
    batch_sizes: str = "1,2,4,8"

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds: found {self.rounds}, expected 1 or more")


def measure(settings: Settings, report: Callable[[str], None]) -> dict[str, Any]:
    """Starts servers in rounds, every other round in reverse; what was found, as plain JSON.

    Args:
      settings: of what.
      report: called with a line on what happens.

    Raises:
      ChildProcessError: a server did not start; the message has what it said.
    """
    load = os.getloadavg()[0]
    starts: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory(prefix="rt2_bench_") as root:
        folder = pathlib.Path(root)
        warm = ("--cache-dir", str(folder / "warm"))
        report("filling the cache")
        _start(settings, warm)
        for number in range(settings.rounds):
            report(f"round {number + 1} of {settings.rounds}")
            flags = {
                "no cache": ("--no-cache",),
                "cold": ("--cache-dir", str(folder / f"cold_{number}")),
                "warm": warm,
            }
            for side in SIDES[:: -1 if number % 2 else 1]:
                starts[side].append(_start(settings, flags[side]))
    pairs = list(zip(starts["cold"], starts["warm"], strict=True))
    return {
        "settings": asdict(settings),
        "load_average": {"before": load, "after": os.getloadavg()[0]},
        "starts": {
            side: {name: statistics.median(each[name] for each in taken) for name in taken[0]}
            for side, taken in starts.items()
        },
        "ratio": spread([cold["seconds"] / warm["seconds"] for cold, warm in pairs]),
        "cpu_ratio": spread([cold["cpu_seconds"] / warm["cpu_seconds"] for cold, warm in pairs]),
    }


def table(found: dict[str, Any]) -> str:
    """What `measure` found, for people."""
    rows = [["start", "ready after", "CPU time", "weights", "programs"]]
    for side, taken in found["starts"].items():
        names = ("seconds", "cpu_seconds", "weights_s", "programs_s")
        rows.append([side, *(f"{taken[name]:.1f} s" for name in names)])
    lines = [aligned(rows)]
    for name, what in (("ratio", "seconds"), ("cpu_ratio", "CPU time")):
        ratio = found[name]
        lines.append(
            f"cold / warm, {what}: {ratio['median']:.1f} ({ratio['least']:.1f} to "
            f"{ratio['greatest']:.1f})"
        )
    return "\n".join(lines)


def _start(settings: Settings, flags: Sequence[str]) -> dict[str, float]:
    """Starts a server, ends it once it is ready; seconds of it all and of its parts."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "rt2_jax.cli.main", "serve", settings.checkpoint),
            *("--port", "0", "--batch-sizes", settings.batch_sizes, *flags),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said: list[str] = []
    assert process.stdout is not None
    try:
        for line in process.stdout:
            said.append(line)
            if found := _READY.match(line):
                return {
                    "seconds": time.perf_counter() - begin,
                    "cpu_seconds": cpu_seconds(process.pid),
                    "weights_s": float(found[1]),
                    "programs_s": float(found[2]),
                }
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
    raise ChildProcessError(f"a server ended with {process.returncode}:\n{''.join(said[-5:])}")
