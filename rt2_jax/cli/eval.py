"""`rt2 eval`: how good a policy is, on recorded steps, on pictures, and in the closed loop."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rt2_jax.cli.eval_closed_loop import add_closed_loop
from rt2_jax.cli.eval_jobs import add_ema, add_infer, add_job_flags, which_params, with_gin
from rt2_jax.cli.eval_replay import add_replay
from rt2_jax.cli.eval_watch import add_watch, watch_as_verb
from rt2_jax.cli.json_file import check_writable, write_json


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `rt2 eval` and its verbs."""
    parser = subparsers.add_parser("eval", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_offline(verbs)
    add_infer(verbs)
    _add_pointing(verbs)
    add_closed_loop(verbs)
    add_replay(verbs)
    add_watch(verbs)
    parse = parser.parse_known_args

    def parse_known_args(args=None, namespace=None):  # type: ignore[no-untyped-def]
        return parse(watch_as_verb(list(args or ())), namespace)

    parser.parse_known_args = parse_known_args


def run(args: argparse.Namespace) -> int | None:
    """Does what the verb asks; returns the exit status."""
    return args.do(args)


def _add_offline(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "offline",
        help="answers cached steps and compares with what was recorded",
        description="Answers cached steps (rt2 data cache TASK --split validation) from their "
        "pictures and texts, and compares with what was recorded: errors in physical units, "
        "tokens, whole actions, and answers to questions. Beside it stands the training split's "
        "median action.",
    )
    _add_checkpoint(parser, "steps of each task, evenly spread (default: all)", nargs="?")
    parser.add_argument("--cache-dir", default="cache", help="default: %(default)s")
    parser.add_argument(
        "--task", action="append", default=[], help="default: all of the mixture; may be repeated"
    )
    parser.add_argument("--split", default="validation", help="default: %(default)s")
    add_job_flags(parser)
    parser.set_defaults(do=_offline)


def _add_pointing(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "pointing",
        help="asks where named objects are and counts how often the answer lies on them",
        description="The pointing game: asks for each object whose name occurs once in a picture, "
        "and counts how often the answered place lies in its box.",
    )
    _add_checkpoint(parser, "pictures, evenly spread (default: all)")
    parser.add_argument(
        "--pictures", required=True, help="folder with images/ and instances.json (COCO's format)"
    )
    parser.add_argument(
        "--place-levels", type=int, default=16, help="of each axis (default: %(default)s)"
    )
    parser.set_defaults(do=_pointing)


def _add_checkpoint(parser: argparse.ArgumentParser, limit: str, nargs: str | None = None) -> None:
    parser.add_argument(
        "checkpoint", nargs=nargs, help="a checkpoint, or a run's folder for its latest"
    )
    parser.add_argument("--limit", type=int, help=limit)
    add_ema(parser)
    parser.add_argument("--json", metavar="F", help="writes the results there, too")
    parser.add_argument(
        "--batch-size", type=int, default=32, help="examples at once (default: %(default)s)"
    )


def _offline(args: argparse.Namespace) -> None:
    from rt2_jax.evaluation.offline import evaluate_offline
    from rt2_jax.evaluation.tables import offline_table
    from rt2_jax.inference.engine import PolicyEngine

    answered = with_gin(args)
    if answered is None:
        return
    args = answered
    check_writable(args.json)
    engine = PolicyEngine.from_checkpoint(
        args.checkpoint, (args.batch_size,), which_params(args.ema)
    )
    with progress() as report:
        reports = evaluate_offline(
            engine, args.cache_dir, args.task, split=args.split, limit=args.limit, report=report
        )
    print(f"{engine.checkpoint}, split {args.split!r}\n")
    print(offline_table(reports))
    data = {
        "checkpoint": engine.checkpoint,
        "parameters": which_params(args.ema),
        "split": args.split,
    }
    write_json(args.json, {**data, "tasks": [each.to_json() for each in reports]})


def _pointing(args: argparse.Namespace) -> None:
    from rt2_jax.evaluation.pointing import evaluate_pointing
    from rt2_jax.evaluation.tables import pointing_table
    from rt2_jax.inference.engine import PolicyEngine

    check_writable(args.json)
    engine = PolicyEngine.from_checkpoint(
        args.checkpoint, (args.batch_size,), which_params(args.ema)
    )
    with progress() as report:
        result = evaluate_pointing(
            engine, args.pictures, levels=args.place_levels, limit=args.limit, report=report
        )
    print(f"{engine.checkpoint}, {args.pictures}\n")
    print(pointing_table(result))
    data = {"checkpoint": engine.checkpoint, "parameters": which_params(args.ema)}
    write_json(args.json, {**data, **result.to_json()})


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each task; a line at its end where there is no terminal."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _report_lines
        return
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console) as bar:
        tasks: dict[str, Any] = {}

        def report(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done)

        yield report


def _report_lines(name: str, done: int, total: int) -> None:
    if done == total:
        print(f"rt2 eval: {name}: {done} answered", file=sys.stderr, flush=True)
