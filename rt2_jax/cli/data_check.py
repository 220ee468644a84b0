"""`rt2 data check`: what is wrong with a task's data."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from rt2_jax.cli.data_progress import reading

FOUND_ERRORS = 1  # exit status


def add_check(
    verbs: argparse._SubParsersAction, add_verb: Callable[..., argparse.ArgumentParser]
) -> None:
    """Adds `check` to the verbs of `rt2 data`."""
    parser = add_verb(verbs, "check", _check, "looks for what is wrong with a task's data")
    parser.epilog = "Exit status: 0 no errors (perhaps warnings), 1 errors, 2 bad input."
    parser.add_argument("name", help="task, or a mixture for all of its tasks")
    parser.add_argument("--split", help="default: all splits, compared with each other")
    parser.add_argument("--cache-dir", default="cache", help="read first (default: %(default)s)")
    parser.add_argument("--episodes", type=int, help="of each split (default: all)")
    parser.add_argument("--json", action="store_true", help="prints JSON instead of text")


def _check(args: argparse.Namespace) -> int:
    from rt2_jax.data.checks import check_task
    from rt2_jax.data.resolve import find_tasks

    if args.episodes is not None and args.episodes < 1:
        raise ValueError(f"--episodes: found {args.episodes}, expected 1 or more")
    splits = [args.split] if args.split else []
    reports = []
    for task, _ in find_tasks(args.name):
        with reading("check") as report:
            found = check_task(
                task,
                splits,
                cache_dir=args.cache_dir,
                episodes=args.episodes,
                report=lambda split, steps, name=task.name: report(f"{name} {split}", steps),
            )
        reports.append(found)
        if not args.json:
            print(found.describe(), flush=True)
    if args.json:
        print(json.dumps([each.to_json() for each in reports], indent=1))
    return FOUND_ERRORS if any(each.errors for each in reports) else 0
