"""The data pipeline in a long run: its memory and open files are bounded and do not grow."""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from rt2_jax.benchmarks.synthetic_robot import CACHE, RECORDED, write
from rt2_jax.data.cache import ACTIONS_FILE, INFO_FILE, STATES_FILE, StepCache

pytestmark = pytest.mark.slow

TASKS = 30
PROCESS, WORKER, STEP = 250e6, 150e6, 40
"""Bytes: of the process that trains, of a worker, of each step in each process; docs/data.md."""


@dataclasses.dataclass(frozen=True)
class Length:
    """`growth`: of the line through the samples after the start, over all of them, of its height.

    In full that is 1 % per 1,000 batches; in the short form a batch more or less in a buffer is
    more than that, so it finds only leaks of a twelfth in 60 batches.
    """

    steps: int  # of a shard
    shards: int  # of each task
    batches: int
    every: int
    growth: float


# In 80 batches a tenth is one step of the allocator, or a few shards that are read at that moment.
SHORT = Length(steps=400, shards=1, batches=80, every=2, growth=0.16)
FULL = Length(steps=1250, shards=20, batches=2000, every=20, growth=0.015)


@pytest.fixture(scope="module")
def length(full_check):
    return FULL if full_check else SHORT


@pytest.fixture(scope="module")
def caches(tmp_path_factory, length):
    """Caches of 30 tasks, 0.3 GB or 20 GB in files of their own; gone after the tests."""
    folder = tmp_path_factory.mktemp("soak")
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn")
    ) as process:
        process.submit(write, str(folder), length.steps).result()
    template = StepCache(folder / CACHE, RECORDED, "train")
    needed = TASKS * length.shards * sum(file.size for file in template.info.files)
    free = shutil.disk_usage(folder).free
    if free < 1.1 * needed:
        pytest.skip(f"needs {needed / 1e9:.0f} GB of disk at {folder}, found {free / 1e9:.0f}")
    try:
        for task in range(TASKS):
            _copy(template, folder / "caches", f"soak_{task:02d}", length.shards)
        assert needed > (20e9 if length is FULL else 0.3e9)
        yield folder / "caches"
    finally:
        shutil.rmtree(folder)


def _copy(template, root, name, shards):
    """The cache of a task whose every file is a copy of the template's."""
    info, folder = template.info, root / name / "train"
    folder.mkdir(parents=True)
    (whole,) = info.files
    files = []
    for shard in range(shards):
        episode = shard * info.episodes
        files.append(
            dataclasses.replace(whole, name=f"{shard}.array_record", first_episode=episode)
        )
        shutil.copyfile(template.directory / whole.name, folder / files[-1].name)
    np.save(folder / ACTIONS_FILE, np.tile(template.actions(), (shards, 1)))
    np.save(folder / STATES_FILE, np.tile(template.states(), (shards, 1)))
    larger = dataclasses.replace(
        info,
        task=dataclasses.replace(info.task, name=name),
        steps=shards * info.steps,
        episodes=shards * info.episodes,
        shard_steps=info.steps,
        source_shards=tuple(map(str, range(shards))),
        files=tuple(files),
    )
    (folder / INFO_FILE).write_text(json.dumps(larger.to_json()))


@pytest.mark.parametrize("workers", [0, 2])
def test_memory_and_open_files_are_bounded_and_do_not_grow(caches, length, workers):
    program = pathlib.Path(__file__).with_name("data_soak.py")
    numbers = (length.batches, length.every, workers)
    run = subprocess.run(
        [sys.executable, program, caches, *map(str, numbers)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    samples = np.array([json.loads(line) for line in run.stdout.splitlines()], float)
    assert len(samples) == length.batches // length.every
    number, memory, files = samples[length.batches // length.every // 4 :].T
    print(f"workers {workers}: {memory.min() / 1e6:.0f} to {memory.max() / 1e6:.0f} MB", end=", ")
    print(f"growth {growth(number, memory):+.2%}; files {files.min():.0f} to {files.max():.0f}")
    shards, readers = TASKS * length.shards, max(workers, 1)
    assert memory.max() < PROCESS + workers * WORKER + readers * shards * length.steps * STEP
    assert files.max() < 100 + 50 * workers + readers * shards
    assert growth(number, memory) < length.growth
    assert growth(number, files) < length.growth


def growth(number, values):
    """How much the line through the values rises from the first to the last, of its mean."""
    slope = np.polyfit(number, values, 1)[0]
    return slope * (number[-1] - number[0]) / values.mean()


@pytest.mark.parametrize("leak", [0.0, 0.02])
def test_a_leak_of_two_percent_per_1000_batches_would_be_seen_in_full(leak):
    number = np.arange(500.0, 2000.0, 20.0)
    noise = np.random.default_rng(0).normal(0, 0.02, len(number))
    found = growth(number, 500e6 * (1 + leak * number / 1000 + noise))
    assert (found > FULL.growth) == bool(leak)
