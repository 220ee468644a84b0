"""What the server's log costs a robot: answers of a constant policy with and without `--log-dir`.

    python benchmarks/serve_log.py [--rounds 20] [--requests 25] [--pause-ms 50]

Two servers, each in a process of its own, are asked in turn over loopback for a picture of the
table-top world, 224 x 224. The figures are medians over the rounds; the ratio is the median of the
rounds' ratios. `--pause-ms 0` asks without a pause, so that every picture is compressed while the
next answer is made. The last line is the compression by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import multiprocessing
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from rt2_jax.actions.policy import Observation
from rt2_jax.benchmarks.stand_in import StandIn
from rt2_jax.client import RemotePolicy
from rt2_jax.data.request_log import encode_picture
from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.request_logger import RequestLogger
from rt2_jax.serving.server import serve
from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.render import RenderSettings

SIDE = 224


def run_server(log_dir: pathlib.Path | None, ready: Connection) -> None:
    """Serves, and logs if there is a folder for it, until it is terminated."""
    policy = StandIn()
    log = None if log_dir is None else RequestLogger(log_dir, policy.metadata)
    serve(policy, port=0, options=ServerOptions(log=log), ready=ready.send)


def picture() -> np.ndarray:
    """A scene, uint8 [224, 224, 3]."""
    with contextlib.closing(
        TabletopEnv("push", render=RenderSettings(height=SIDE, width=SIDE))
    ) as env:
        image: np.ndarray = env.reset(seed=0)[0]["images"]["front"]
        return image


def milliseconds(call: Callable[[], Any], count: int, pause_s: float = 0.0) -> list[float]:
    """Times of single calls."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
        time.sleep(pause_s)
    return times


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=25)
    parser.add_argument("--pause-ms", type=float, default=50.0)
    args = parser.parse_args()
    image = picture()
    seen = Observation({"front": image}, "push the red cube to the blue one")
    times: dict[str, list[list[float]]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        processes, policies = [], {}
        for name, log_dir in (("with", pathlib.Path(folder)), ("without", None)):
            receive, send = multiprocessing.Pipe(duplex=False)
            processes.append(multiprocessing.Process(target=run_server, args=(log_dir, send)))
            processes[-1].start()
            policies[name] = RemotePolicy(receive.recv())
            milliseconds(functools.partial(policies[name].infer, seen), 20)
        for _ in range(args.rounds):
            for name, policy in policies.items():
                time.sleep(0.3)  # the log of the round before is written
                ask = functools.partial(policy.infer, seen)
                times[name].append(milliseconds(ask, args.requests, args.pause_ms / 1000))
        for process in processes:
            process.terminate()
            process.join()
        size = sum(file.stat().st_size for file in pathlib.Path(folder).rglob("*.array_record"))
    for name, rounds in times.items():
        every = sorted(sum(rounds, []))
        median, late = statistics.median(every), every[int(0.99 * len(every))]
        print(f"{name} log: {median:.2f} ms (median), {late:.2f} ms (99th percentile)")
    medians = {name: [statistics.median(each) for each in rounds] for name, rounds in times.items()}
    pairs = zip(medians["with"], medians["without"], strict=True)
    print(f"ratio: {statistics.median(a / b for a, b in pairs):.3f}")
    count = 20 + args.rounds * args.requests
    took = statistics.median(milliseconds(functools.partial(encode_picture, image), 20))
    print(f"a record: {size / count / 1000:.1f} kB; compressing its picture: {took:.1f} ms")


if __name__ == "__main__":
    main()
