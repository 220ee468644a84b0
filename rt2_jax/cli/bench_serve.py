"""`rt2 bench serve`: many robots at one server, or what the server adds to a call of the policy."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import sys

from rt2_jax.cli.json_file import check_writable, write_json


def add_serve(verbs: argparse._SubParsersAction) -> None:
    """Adds `rt2 bench serve`."""
    parser = verbs.add_parser(
        "serve",
        help="robots at a server: percentiles, missed ticks, where the time goes",
        description="Drives robots at a server over openpi's websocket wire, each at its rate "
        "whether or not answers come, and counts latencies from when a tick was due. Robots are "
        "processes of their own. docs/serving_speed.md says what the figures mean.",
    )
    parser.add_argument(
        "server",
        nargs="?",
        help="ws://host:port of one that runs, or a checkpoint to serve here meanwhile",
    )
    parser.add_argument(
        "--policy",
        help="a server here of a policy without a model: constant, or fixed:20ms for any batch",
    )
    parser.add_argument("--robots", type=int, default=8, help="default: %(default)s")
    parser.add_argument(
        "--rate",
        default="3",
        help="Hz of each; 'max' asks again as soon as it is answered (default: %(default)s)",
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="default: %(default)s")
    parser.add_argument("--picture", metavar="HxW", help="default: the policy's, else 224x224")
    parser.add_argument("--jpeg", action="store_true", help="pictures as JPEG, not as pixels")
    parser.add_argument(
        "--budget-ms", type=float, help="of every request (default: none; the period is to be met)"
    )
    parser.add_argument(
        "--instruction", default="pick up the red cube", help="default: %(default)s"
    )
    parser.add_argument(
        "--together", action="store_true", help="all robots tick at once, instead of spread"
    )
    parser.add_argument(
        "--processes", type=int, help="that share the robots (default: one for each processor)"
    )
    parser.add_argument(
        "--largest-batch", type=int, help="of a server that is started here (default: 8, or 32)"
    )
    parser.add_argument("--token-file", type=pathlib.Path, help="of a server that asks for one")
    parser.add_argument(
        "--overhead",
        action="store_true",
        help="instead: what the server adds to a call of a constant policy in this process",
    )
    parser.add_argument("--rounds", type=int, default=30, help="of --overhead (%(default)s)")
    parser.add_argument("--json", metavar="F", help="writes the results there, too")
    parser.set_defaults(do=_serve)


def _serve(args: argparse.Namespace) -> None:
    check_writable(args.json)
    if args.overhead:
        from rt2_jax.benchmarks import serve_overhead

        size = _size(args.picture) or (224, 224)
        settings = serve_overhead.Settings(args.rounds, picture=size)
        found = serve_overhead.measure(settings, _report)
        print(serve_overhead.table(found))
        write_json(args.json, found)
        return
    from rt2_jax.benchmarks.serve import measure, server_arguments, table
    from rt2_jax.benchmarks.serve_robots import Robots
    from rt2_jax.benchmarks.served_process import started

    if (args.server is None) == (args.policy is None):
        raise ValueError("what is measured: give a URL, a checkpoint, or --policy constant")
    with contextlib.ExitStack() as stack:
        url = args.server
        if url is None or not url.startswith(("ws://", "wss://")):
            largest = args.largest_batch or (8 if args.policy is None else 32)
            _report("starting a server")
            words = server_arguments(args.policy, args.server, largest)
            url, _ = stack.enter_context(started(words))
        robots = Robots(
            url=url,
            token=None if args.token_file is None else args.token_file.read_text().strip(),
            rate_hz=_rate(args.rate),
            seconds=args.seconds,
            picture=_size(args.picture),
            jpeg=args.jpeg,
            budget_ms=args.budget_ms,
            instruction=args.instruction,
            together=args.together,
        )
        found = measure(robots, args.robots, _report, args.processes)
    print(table(found))
    write_json(args.json, found)


def _rate(text: str) -> float | None:
    if text == "max":
        return None
    with contextlib.suppress(ValueError):
        return float(text)
    raise ValueError(f"--rate: found {text!r}, expected Hz such as 3, or 'max'")


def _size(text: str | None) -> tuple[int, int] | None:
    """(height, width)."""
    if text is None:
        return None
    words = text.split("x")
    if len(words) == 2 and all(word.isdecimal() and int(word) > 0 for word in words):
        return int(words[0]), int(words[1])
    raise ValueError(f"--picture: found {text!r}, expected HEIGHTxWIDTH such as 224x224")


def _report(line: str) -> None:
    print(f"rt2 bench: {line}", file=sys.stderr, flush=True)
