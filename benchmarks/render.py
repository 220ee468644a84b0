"""How long a picture of the built-in world takes, with every renderer that works here.

    python benchmarks/render.py [--json] [--rounds 5] [--sizes 64 128 224]

All renderers and settings take turns in every round, so that a change in the machine's load meets
each of them; the figures are medians over the rounds. CPU time is of all threads (GL uses several).
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import platform
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import mujoco

from rt2_jax.sim.mjcf import build_model
from rt2_jax.sim.render import RENDERERS, Renderer, RenderSettings, make_renderer
from rt2_jax.sim.scene import sample_scene
from rt2_jax.sim.world import load_world

CAMERA = "front"
SCENES = 4
FRAMES = 5  # of each scene, in each round
COLUMNS = ("renderer", "size", "antialias", "shadows", "cpu_ms", "frames_per_s", "load_cpu_ms")


@functools.cache
def scenes() -> list[tuple[mujoco.MjModel, mujoco.MjData]]:
    """The first scenes of the built-in world, with the objects come to rest."""
    world = load_world()
    skills = itertools.cycle(world.skills)
    result = []
    for seed in range(SCENES):
        model = build_model(world, sample_scene(world, next(skills), seed))
        data = mujoco.MjData(model)
        mujoco.mj_step(model, data, 50)
        mujoco.mj_forward(model, data)
        result.append((model, data))
    return result


@functools.cache
def renderer_of(settings: RenderSettings) -> Renderer:
    """One renderer for all rounds, as in a recording."""
    return make_renderer(settings)


def measure(settings: RenderSettings) -> tuple[float, float, float]:
    """CPU-ms of a picture, pictures a second, CPU-ms of loading a scene."""
    renderer = renderer_of(settings)
    cpu = wall = load = 0.0
    for model, data in scenes():
        start = time.process_time()
        renderer.load(model)
        load += time.process_time() - start
        renderer.render(data, CAMERA)
        start, wall_start = time.process_time(), time.perf_counter()
        for _ in range(FRAMES):
            renderer.render(data, CAMERA)
        cpu += time.process_time() - start
        wall += time.perf_counter() - wall_start
    pictures = SCENES * FRAMES
    return cpu / pictures * 1e3, pictures / wall, load / SCENES * 1e3


def measure_all(sizes: list[int], rounds: int) -> list[dict[str, Any]]:
    """A row for every renderer that works and all its settings."""
    # One process can use only one GL library.
    spawn = multiprocessing.get_context("spawn")
    workers = {name: ProcessPoolExecutor(1, mp_context=spawn) for name in RENDERERS}
    cases = [
        RenderSettings(name, size, size, antialias, shadows)
        for size in sizes
        for antialias, shadows in itertools.product((True, False), repeat=2)
        for name in RENDERERS
    ]
    figures: dict[RenderSettings, list[tuple[float, float, float]]] = {}
    for number in range(rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr)
        for settings in [case for case in cases if case.renderer in workers]:
            try:
                figure = workers[settings.renderer].submit(measure, settings).result()
            except RuntimeError as error:
                print(f"left out: {error}", file=sys.stderr)
                workers.pop(settings.renderer).shutdown()
                continue
            if number > 0:  # round 0 makes the renderers
                figures.setdefault(settings, []).append(figure)
    for worker in workers.values():
        worker.shutdown()
    rows = []
    for settings, several in figures.items():
        medians = [round(statistics.median(column), 2) for column in zip(*several, strict=True)]
        values = (
            settings.renderer,
            settings.height,
            settings.antialias,
            settings.shadows,
            *medians,
        )
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[64, 128, 224], help="pixels a side"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    rows = measure_all(arguments.sizes, arguments.rounds)
    if arguments.json:
        machine = {"mujoco": mujoco.__version__, "python": platform.python_version()}
        print(json.dumps({**machine, "rows": rows}, indent=1))
        return
    print("".join(f"{column:>14}" for column in COLUMNS))
    for row in rows:
        print("".join(f"{row[column]!s:>14}" for column in COLUMNS))


if __name__ == "__main__":
    main()
