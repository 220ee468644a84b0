"""`rt2 bench serve`: robots ask a server at a rate; percentiles, missed deadlines, shares."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from rt2_jax._text_table import aligned
from rt2_jax.benchmarks.serve_robots import Robots, Ticks, drive
from rt2_jax.benchmarks.served_process import Usage, listener

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}

_PARTS = {
    "held_up": "held up by the answer before",
    "robot": "the robots' own lag",
    "wire": "wire",
    "queue": "queue",
    "model": "model",
}
_START_S = 0.5  # from "all are ready" to the first tick
_LATEST_S = 120.0  # for the connections, and behind the last tick


def measure(
    robots: Robots, count: int, report: Callable[[str], None], processes: int | None = None
) -> dict[str, Any]:
    """Drives robots and says how they fared, as plain JSON.

    Args:
      robots: how they ask.
      count: how many there are.
      report: called with a line on what happens.
      processes: that share the robots; None: one for each processor, and no more than robots.

    Raises:
      ValueError: a number that cannot be meant, or what the server says against such requests.
      ConnectionError: no server answers there.
    """
    for name, value in (
        ("robots", count),
        ("rate", robots.rate_hz or 1),
        ("seconds", robots.seconds),
        ("budget", 1 if robots.budget_ms is None else robots.budget_ms),
        ("processes", 1 if processes is None else processes),
    ):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name}: found {value:g}, expected more than 0")
    processes = min(count, processes or os.cpu_count() or 1)
    pid = listener(robots.url)
    load = os.getloadavg()[0]
    with _driving(robots, count, processes) as pipes:
        for pipe in pipes:
            _receive(pipe, _LATEST_S)
        report(f"{count} robots are connected to {robots.url}")
        usage = None if pid is None else Usage(pid)
        begin = time.monotonic() + _START_S
        for pipe in pipes:
            pipe.send(begin)
        while usage is not None and time.monotonic() < begin + robots.seconds:
            time.sleep(min(1.0, robots.seconds / 10))
            usage.look()
        ticks = Ticks.joined(
            [
                _receive(pipe, begin + robots.seconds + _LATEST_S - time.monotonic())
                for pipe in pipes
            ]
        )
    return {
        "robots": {**dataclasses.asdict(robots), "token": None, "count": count},
        "load_average": {"before": load, "after": os.getloadavg()[0]},
        **_summary(robots, ticks),
        "clients": {"processes": processes, "cpu_s": ticks.cpu_s},
        "server": None if usage is None else usage.to_json(),
    }


@contextlib.contextmanager
def _driving(robots: Robots, count: int, processes: int) -> Iterator[list[Connection]]:
    context = multiprocessing.get_context("spawn")
    started, pipes = [], []
    try:
        for first in range(processes):
            here, there = context.Pipe()
            numbers = list(range(first, count, processes))
            process = context.Process(target=drive, args=(robots, numbers, count, there))
            process.start()
            there.close()
            started.append(process)
            pipes.append(here)
        yield pipes
    finally:
        for process in started:
            process.join(1)
            if process.is_alive():
                process.terminate()
                process.join()


def _receive(pipe: Connection, seconds: float) -> Any:
    """What a process sends; raises what it raised."""
    try:
        found = pipe.recv() if pipe.poll(max(seconds, 0)) else TimeoutError("robots do not answer")
    except EOFError:
        found = RuntimeError("a process of robots has ended without a word")
    if isinstance(found, BaseException):
        raise found
    return found


def _summary(robots: Robots, ticks: Ticks) -> dict[str, Any]:
    count, acted = len(ticks.due), ticks.acted
    latency = 1000 * (ticks.back - ticks.due)[acted]
    period_ms = None if robots.rate_hz is None else 1000 / robots.rate_hz
    deadline = period_ms if robots.budget_ms is None else robots.budget_ms
    in_time = int(acted.sum()) if deadline is None else int((latency <= deadline).sum())
    # Longer than was meant where the last answers come late.
    took = float(ticks.back[acted].max() - ticks.due.min()) if acted.any() else 0.0
    seconds = max(robots.seconds, took)
    parts = {
        "held_up": 1000 * (ticks.free - ticks.due)[acted],
        "robot": 1000 * (ticks.sent - ticks.free)[acted],
        "queue": ticks.queue_ms[acted],
        "model": ticks.infer_ms[acted],
    }
    parts["wire"] = latency - sum(parts.values())
    # A batch of n is seen n times.
    sizes = {
        int(size): int((ticks.batch_size == size).sum()) for size in set(ticks.batch_size[acted])
    }
    batches = {size: seen / size for size, seen in sorted(sizes.items())}
    return {
        "ticks": count,
        "actions": int(acted.sum()),
        "actions_per_second": float(acted.sum() / seconds),
        "megabytes_per_second": ticks.bytes_sent / seconds / 1e6,
        "latency_ms": _percentiles(latency),
        "deadline_ms": deadline,
        "missed": count - in_time,
        "missed_share": (count - in_time) / max(count, 1),
        "reasons": dict(ticks.reasons.most_common()),
        "parts_ms": {name: _percentiles(values) for name, values in parts.items()},
        "shares": {
            name: float(values.sum() / latency.sum()) if len(latency) else None
            for name, values in parts.items()
        },
        "batches": {str(size): round(number, 1) for size, number in batches.items()},
        "mean_batch": sum(sizes.values()) / sum(batches.values()) if batches else None,
    }


def _percentiles(values: np.ndarray) -> dict[str, float | None]:
    if not len(values):
        return {name: None for name in ("mean", *PERCENTILES)}
    found = np.percentile(values, list(PERCENTILES.values()), method="higher")
    return {"mean": float(values.mean()), **dict(zip(PERCENTILES, map(float, found), strict=True))}


def table(found: dict[str, Any]) -> str:
    """What `measure` found, for people."""
    robots, deadline = found["robots"], found["deadline_ms"]
    rate = (
        "as fast as they are answered" if robots["rate_hz"] is None else f"{robots['rate_hz']:g} Hz"
    )
    rows = [
        ["ms", "share", "mean", *PERCENTILES],
        ["from the tick to the action", "", *map(_ms, found["latency_ms"].values())],
    ]
    for part, words in _PARTS.items():
        share, values = found["shares"][part], found["parts_ms"][part].values()
        rows.append([f"  {words}", "-" if share is None else f"{share:.0%}", *map(_ms, values)])
    lines = [
        f"{robots['count']} robots, {rate}, {robots['seconds']:g} s, {robots['url']}",
        "",
        aligned(rows),
        "",
        f"{found['actions_per_second']:.1f} actions/s, {found['megabytes_per_second']:.1f} MB/s of "
        f"requests; {found['actions']} of {found['ticks']} ticks got an action",
    ]
    if deadline is not None:
        lines.append(
            f"missed: {found['missed']} of {found['ticks']} ticks had no action within "
            f"{deadline:.0f} ms ({found['missed_share']:.2%})"
        )
    lines += [f"  {number} x {reason}" for reason, number in found["reasons"].items()]
    if found["batches"]:
        seen = ", ".join(f"{number:g} of {size}" for size, number in found["batches"].items())
        lines.append(f"batches: {seen}; mean {found['mean_batch']:.2f}")
    if (used := found["server"]) is not None:
        lines.append(
            f"server: {used['cpus']:.2f} CPUs; memory {used['rss_first_mb']:.0f} MB at the start, "
            f"{used['rss_last_mb']:.0f} MB at the end, {used['rss_most_mb']:.0f} MB at most"
        )
    clients = found["clients"]
    lines.append(
        f"robots: {clients['processes']} processes, {clients['cpu_s'] / robots['seconds']:.2f} CPUs"
    )
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def server_arguments(
    policy: str | None, checkpoint: str | None, largest_batch: int, extra: Sequence[str] = ()
) -> list[str]:
    """`python ARGUMENTS` of the server of a stand-in policy, or of a checkpoint."""
    if checkpoint is None:
        from rt2_jax.benchmarks.stand_in import StandIn

        StandIn.of(str(policy))  # a wrong name is said here
        module = ["rt2_jax.benchmarks.stand_in", str(policy), f"--largest-batch={largest_batch}"]
        return ["-m", *module, *extra]
    sizes = [2**power for power in range(largest_batch.bit_length())]
    sizes = sorted({*(size for size in sizes if size < largest_batch), largest_batch})
    words = f"--batch-sizes={','.join(map(str, sizes))}"
    return ["-m", "rt2_jax.cli.main", "serve", checkpoint, "--port=0", words, *extra]
