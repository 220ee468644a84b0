"""`rt2 bench data`: what making batches and caching cost, beside a bare loop and tf.data."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import platform
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from rt2_jax._text_table import aligned
from rt2_jax.benchmarks.data_sides import BareLoop, Caching, Pipeline, TfData
from rt2_jax.benchmarks.rounds import Side, Turn, ratios, spread, take_turns
from rt2_jax.benchmarks.synthetic_robot import write

PIPELINE, WORKER, BARE, TF_DATA, CACHING = (
    "pipeline",
    "pipeline, 1 worker",
    "bare loop",
    "tf.data",
    "caching",
)
AIMS = (
    (PIPELINE, BARE, 0.65),
    (WORKER, BARE, 0.65),
    (PIPELINE, TF_DATA, 0.9),
    (WORKER, TF_DATA, 0.9),
)
"""(side, other side, least ratio) of examples per CPU-second."""
CACHING_AIM = 300.0
"""Steps per CPU-second."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
      rounds: in which every side has its turn.
      records: steps of the task that all sides read.
      size: of the pictures that they make, pixels a side.
      batches: of 64, in a turn.

    Raises:
      ValueError: a number below 1.
    """

    rounds: int = 5
    records: int = 2048
    size: int = 224
    batches: int = 20

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"{name}: found {value}, expected 1 or more")


def measure(settings: Settings, report: Callable[[str], None]) -> dict[str, Any]:
    """Runs all sides; what was found, as plain JSON.

    Args:
      settings: how much.
      report: called with a line on what happens.
    """
    with tempfile.TemporaryDirectory(prefix="rt2_bench_") as folder:
        report(f"drawing and caching {settings.records} steps")
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as process:
            process.submit(write, folder, settings.records).result()
        size, turn = settings.size, settings.batches
        sides: dict[str, Side] = {
            PIPELINE: Pipeline(folder, size, turn, workers=0),
            WORKER: Pipeline(folder, size, turn, workers=1),
            BARE: BareLoop(folder, size, turn),
            TF_DATA: TfData(folder, size, turn),
            CACHING: Caching(folder),
        }
        load = os.getloadavg()[0]
        turns = take_turns(sides, settings.rounds, report)
    packages = ("grain", "numpy", "pillow", "tensorflow")
    return {
        "settings": asdict(settings),
        "machine": {
            "processors": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "load_average": {"before": load, "after": os.getloadavg()[0]},
        "sides": {name: _side(each) for name, each in turns.items()},
        "ratios": [
            {"side": above, "to": below, "aim": aim, **spread(ratios(turns, above, below))}
            for above, below, aim in AIMS
        ],
    }


def _side(turns: list[Turn]) -> dict[str, Any]:
    return {
        "per_cpu_second": spread([turn.per_cpu_second for turn in turns]),
        "per_second": spread([turn.per_second for turn in turns]),
    }


def table(found: dict[str, Any]) -> str:
    """What `measure` found, for people."""
    sides = [["side", "", "per CPU-second", "least", "greatest", "per second", "aim"]]
    for name, side in found["sides"].items():
        cpu = side["per_cpu_second"]
        figures = (cpu["median"], cpu["least"], cpu["greatest"], side["per_second"]["median"])
        unit, aim = ("steps", f"{CACHING_AIM:g}") if name == CACHING else ("examples", "")
        sides.append([name, unit, *(f"{figure:.0f}" for figure in figures), aim])
    compared = [["side", "to", "ratio", "least", "greatest", "aim"]]
    for row in found["ratios"]:
        words = [f"{row[name]:.2f}" for name in ("median", "least", "greatest")]
        compared.append([row["side"], row["to"], *words, f"{row['aim']:g}"])
    load, machine = found["load_average"], found["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in machine.items())
    return (
        f"{aligned(sides)}\n\nexamples per CPU-second, medians of the rounds' ratios\n"
        f"{aligned(compared)}\n\n{found['settings']['rounds']} rounds; {versions}\n"
        f"load average {load['before']:.2f} before, {load['after']:.2f} after"
    )
