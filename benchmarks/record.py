"""How long recording demonstrations takes, from the call to the finished data set.

    python benchmarks/record.py [--episodes 300] [--sizes 64 128 224] [--renderer ray] [--jobs 2]

Two loads: what is really recorded (half *reach*, half *push*, by the expert, whose episodes are
short), and as many episodes of the full 40 steps, as they are with a slower teacher.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import resource
import tempfile
import time

from rt2_jax.data.tfrecord import read_records
from rt2_jax.sim.record import RecordSettings, record
from rt2_jax.sim.render import RENDERERS, RenderSettings

LOADS = {"expert": "reach and push by the expert", "do_nothing": "all 40 steps"}


@dataclasses.dataclass(frozen=True)
class Figures:
    """One recording. `cpu_ms` is of all processes, per step; `mb` its size on disk;
    `load_average` the machine's before it began.
    """

    load: str
    size: int
    episodes: int
    steps: int
    seconds: float
    steps_per_s: float
    cpu_ms: float
    mb: float
    load_average: float


def measure(policy: str, size: int, options: argparse.Namespace) -> Figures:
    """Records once into a folder that is thrown away."""
    render = RenderSettings(options.renderer, size, size)
    settings = RecordSettings(episodes=options.episodes, policy=policy, render=render)
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        start, start_cpu = time.perf_counter(), cpu_seconds()
        directory = record(settings, folder, jobs=options.jobs).directory
        seconds, cpu = time.perf_counter() - start, cpu_seconds() - start_cpu
        files = list(directory.iterdir())
        steps = sum(count_steps(file) for file in files if "tfrecord" in file.name)
        mb = sum(file.stat().st_size for file in files) / 1e6
    return Figures(
        LOADS[policy],
        size,
        options.episodes,
        steps,
        seconds,
        steps / seconds,
        1000 * cpu / steps,
        mb,
        load_average,
    )


def cpu_seconds() -> float:
    """What this process and its finished children have used so far."""
    return sum(
        resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def count_steps(shard: pathlib.Path) -> int:
    """The steps of all episodes of a file."""
    from tensorflow_datasets.proto import tf_example_pb2

    examples = map(tf_example_pb2.Example.FromString, read_records(shard))
    key = "episode_metadata/steps"
    return sum(example.features.feature[key].int64_list.value[0] for example in examples)


def main() -> None:
    """Measures every load at every size and prints a table or JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 224])
    parser.add_argument("--renderer", choices=RENDERERS, default="ray")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="a line of JSON for each recording")
    options = parser.parse_args()
    if not options.json:
        processors = f"{options.jobs} processes on {os.cpu_count()} processors"
        print(f"renderer {options.renderer}, {processors}")
        print(f"{'load':30} size episodes  steps seconds steps/s cpu_ms     MB loadavg")
    for size in options.sizes:
        for policy in LOADS:
            f = measure(policy, size, options)
            if options.json:
                print(json.dumps(dataclasses.asdict(f)), flush=True)
            else:
                print(
                    f"{f.load:30} {f.size:4} {f.episodes:8} {f.steps:6} {f.seconds:7.1f} "
                    f"{f.steps_per_s:7.1f} {f.cpu_ms:6.1f} {f.mb:6.1f} {f.load_average:7.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
