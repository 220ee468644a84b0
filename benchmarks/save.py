"""`rt2 bench save`: what a step costs while a checkpoint is written, beside one without."""

from __future__ import annotations

import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rt2_jax._text_table import aligned

AIM = 1.2
"""Median step time while saving, at most so many times that without."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
      rounds: of so many steps with a save at their beginning, and so many without.
      steps: between two saves.
      megabytes: of the state, float32.

    Raises:
      ValueError: a number below 1.
    """

    rounds: int = 5
    steps: int = 10
    megabytes: int = 500

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"{name}: found {value}, expected 1 or more")


def measure(settings: Settings, report: Callable[[str], None]) -> dict[str, Any]:
    """Takes steps with and without saves, in turn; what was found, as plain JSON.

    A step multiplies matrices for about as long as copying the state takes, so that it waits for
    the processor as a step of training does.

    Args:
      settings: how much.
      report: called with a line on what happens.
    """
    import jax
    import jax.numpy as jnp

    from rt2_jax.training.checkpoints import Checkpoints
    from rt2_jax.training.train_state import TrainState

    side = 1024
    count = -(-settings.megabytes * 1_000_000 // (2 * 4 * side * side))

    def tree(value: float) -> dict[str, jax.Array]:
        return {f"layer_{index}": jnp.full((side, side), value) for index in range(count)}

    @jax.jit
    def step(state: TrainState) -> TrainState:
        def multiplied(leaf: jax.Array) -> jax.Array:
            return leaf + 1e-6 * jnp.tanh(leaf @ leaf)

        params = jax.tree.map(multiplied, state.params)
        return TrainState(state.step + 1, params, state.param_states)

    def taken(state: TrainState, number: int) -> tuple[TrainState, list[float]]:
        times = []
        for _ in range(number):
            begin = time.perf_counter()
            state = jax.block_until_ready(step(state))
            times.append(time.perf_counter() - begin)
        return state, times

    state = TrainState(jnp.int32(0), tree(1e-3), tree(0.0))
    load = os.getloadavg()[0]
    with_saves: list[float] = []
    without: list[float] = []
    ratios, blocked = [], []
    with (
        tempfile.TemporaryDirectory(prefix="rt2_bench_") as folder,
        Checkpoints(pathlib.Path(folder), keep=1) as checkpoints,
    ):
        state, _ = taken(state, 2)
        for number in range(settings.rounds + 1):
            report(f"round {number} of {settings.rounds}" if number else "warming up")
            state, plain = taken(state, settings.steps)
            begin = time.perf_counter()
            checkpoints.save(state, {}, {})
            seconds = time.perf_counter() - begin
            state, saving = taken(state, settings.steps)
            saving[0] += seconds  # what saving holds up belongs to a step
            checkpoints.wait()
            if number:
                without += plain
                with_saves += saving
                blocked.append(seconds)
                ratios.append(statistics.median(saving) / statistics.median(plain))
    return {
        "settings": asdict(settings),
        "state_bytes": 2 * count * 4 * side * side,
        "load_average": {"before": load, "after": os.getloadavg()[0]},
        "seconds_per_step": statistics.median(without),
        "seconds_per_step_while_saving": statistics.median(with_saves),
        "mean_ratio": statistics.fmean(with_saves) / statistics.fmean(without),
        "seconds_held_up_by_a_save": statistics.median(blocked),
        "ratio": {
            "median": statistics.median(ratios),
            "least": min(ratios),
            "greatest": max(ratios),
            "aim": AIM,
        },
    }


def table(found: dict[str, Any]) -> str:
    """What `measure` found, for people."""
    ratio = found["ratio"]
    rows = [
        ["state", f"{found['state_bytes'] / 1e6:.0f} MB"],
        ["step", f"{1000 * found['seconds_per_step']:.0f} ms (median)"],
        ["step while saving", f"{1000 * found['seconds_per_step_while_saving']:.0f} ms (median)"],
        ["held up by a save", f"{1000 * found['seconds_held_up_by_a_save']:.0f} ms (median)"],
        [
            "ratio of medians",
            f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['greatest']:.2f}), "
            f"aim: at most {ratio['aim']:g}",
        ],
        ["ratio of means", f"{found['mean_ratio']:.2f}"],
    ]
    return aligned(rows)
