"""This server and openpi's own beside each other: openpi's clients, and a policy without a model.

    git clone --depth 1 https://github.com/Physical-Intelligence/openpi
    python benchmarks/openpi_serve.py --openpi openpi [--policy fixed:5ms] [--rounds 11]
        [--seconds 2] [--json FILE]

Both servers run in processes of their own. 1, 4 and 16 unmodified openpi clients, each in a process
of its own, ask one of them and then the other for `--seconds`, as fast as they are answered, with a
picture of 224 x 224; every other round begins with the other server. The ratios are ours to
openpi's, medians over the rounds. openpi's two files need msgpack, websockets and
typing_extensions, so they run in this environment.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import multiprocessing
import os
import pathlib
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from rt2_jax._text_table import aligned
from rt2_jax.benchmarks.serve_robots import make_picture
from rt2_jax.benchmarks.served_process import started
from rt2_jax.benchmarks.stand_in import StandIn

CLIENTS = (1, 4, 16)
AIMS = {1: 0.8, 4: 1.0, 16: 1.0}
"""Clients -> least ratio of requests/s."""
AIM_P99 = 1.5
"""Greatest ratio of the 99th percentiles."""
SIDES = ("ours", "openpi")

_CLIENT_SOURCES = "packages/openpi-client/src"
_SERVER_SOURCE = "src/openpi/serving/websocket_policy_server.py"


def serve_openpi(openpi: pathlib.Path, policy: StandIn, port: int) -> None:
    """openpi's `WebsocketPolicyServer`, as it is; it prints its URL."""
    sys.path.insert(0, str(openpi / _CLIENT_SOURCES))
    spec = importlib.util.spec_from_file_location(
        "websocket_policy_server", openpi / _SERVER_SOURCE
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class OneByOne:
        def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
            return policy.infer_batch([observation])[0]  # type: ignore[list-item]

    print(f"serving openpi's at ws://127.0.0.1:{port}", flush=True)
    module.WebsocketPolicyServer(OneByOne(), "127.0.0.1", port).serve_forever()


def ask(openpi: pathlib.Path, urls: Mapping[str, str], seed: int, pipe: Connection) -> None:
    """A client process: connects to both, then asks (side, begin, seconds) after each order."""
    sys.path.insert(0, str(openpi / _CLIENT_SOURCES))
    from openpi_client.websocket_client_policy import (  # type: ignore[import-not-found]
        WebsocketClientPolicy,
    )

    policies = {side: _connected(WebsocketClientPolicy, url) for side, url in urls.items()}
    seen = {"observation/image": make_picture((224, 224), seed), "prompt": "pick up the red cube"}
    for policy in policies.values():
        for _ in range(20):
            assert policy.infer(seen)["actions"].shape == (1, 8)
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        side, begin, seconds = order
        infer, times = policies[side].infer, []
        time.sleep(max(begin - time.monotonic(), 0))
        while (start := time.monotonic()) < begin + seconds:
            infer(seen)
            times.append(time.monotonic() - start)
        pipe.send(times)


def _connected(client: type, url: str) -> Any:
    """A server prints its URL a moment before it listens."""
    host, _, port = url.removeprefix("ws://").partition(":")
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection((host, int(port))).close()
            return client(host, int(port))
        if time.monotonic() > end:
            raise ConnectionError(f"{url}: no server answers")
        time.sleep(0.1)


@contextlib.contextmanager
def _clients(openpi: pathlib.Path, urls: Mapping[str, str], count: int) -> Iterator[list]:
    context = multiprocessing.get_context("spawn")
    processes, pipes = [], []
    try:
        for seed in range(count):
            here, there = context.Pipe()
            process = context.Process(target=ask, args=(openpi, urls, seed, there), daemon=True)
            process.start()
            there.close()
            processes.append(process)
            pipes.append(here)
        for pipe in pipes:
            pipe.recv()
        yield pipes
    finally:
        for pipe in pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in processes:
            process.join(5)
            process.terminate()


def _turn(pipes: list, side: str, seconds: float) -> dict[str, float]:
    begin = time.monotonic() + 0.2
    for pipe in pipes:
        pipe.send((side, begin, seconds))
    times = np.concatenate([pipe.recv() for pipe in pipes])
    p50, p99 = 1000 * np.percentile(times, [50, 99], method="higher")
    return {"requests_per_s": len(times) / seconds, "p50_ms": float(p50), "p99_ms": float(p99)}


def compare(openpi: pathlib.Path, policy: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Both in rounds; for each number of clients the turns of both sides and median ratios."""
    for source in (_CLIENT_SOURCES, _SERVER_SOURCE):
        if not (openpi / source).exists():
            raise SystemExit(f"--openpi {openpi}: found no {source}; expected a copy of openpi")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ours = ["-m", "rt2_jax.benchmarks.stand_in", policy]
    theirs = [__file__, "--openpi", str(openpi), "--policy", policy, "--serve", str(port)]
    load = os.getloadavg()[0]
    found: dict[str, Any] = {}
    with (
        started(ours) as (our_url, _),
        started(theirs) as (their_url, _),
        _clients(openpi, {"ours": our_url, "openpi": their_url}, max(CLIENTS)) as pipes,
    ):
        for count in CLIENTS:
            turns: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
            for number in range(rounds):
                print(f"{count} clients, round {number + 1} of {rounds}", file=sys.stderr)
                for side in SIDES[:: -1 if number % 2 else 1]:
                    turns[side].append(_turn(pipes[:count], side, seconds))
            pairs = list(zip(turns["ours"], turns["openpi"], strict=True))
            ratios = {
                name: statistics.median(a[name] / b[name] for a, b in pairs)
                for name in ("requests_per_s", "p50_ms", "p99_ms")
            }
            found[str(count)] = {**turns, "ratio": ratios}
    return {"clients": found, "load_average": {"before": load, "after": os.getloadavg()[0]}}


def table(found: Mapping[str, Any]) -> str:
    """What `compare` found, for people."""
    rows = [["clients", "", "ours", "openpi's", "ratio", "aim"]]
    for count, each in found["clients"].items():
        aims = {"requests_per_s": f">= {AIMS[int(count)]:g}", "p99_ms": f"<= {AIM_P99:g}"}
        for name, ratio in each["ratio"].items():
            medians = [statistics.median(turn[name] for turn in each[side]) for side in SIDES]
            figures = [f"{value:.2f}" for value in (*medians, ratio)]
            rows.append([count, name.replace("_", " "), *figures, aims.get(name, "")])
    return aligned(rows)


def main() -> None:
    """Compares and prints; with `--serve` it is openpi's server."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--openpi", type=pathlib.Path, required=True, help="a copy of openpi")
    parser.add_argument("--policy", default="constant", help="or fixed:5ms (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a turn")
    parser.add_argument("--json", type=pathlib.Path, help="the figures of all rounds go there")
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        serve_openpi(args.openpi, StandIn.of(args.policy), args.serve)
        return
    found = compare(args.openpi.absolute(), args.policy, args.rounds, args.seconds)
    print(table(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
