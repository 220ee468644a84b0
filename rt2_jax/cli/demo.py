"""`rt2 demo`: the main job in small, by one command."""

from __future__ import annotations

import argparse
import pathlib
import sys


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `rt2 demo`."""
    parser = subparsers.add_parser(
        "demo",
        description="Records demonstrations, co-fine-tunes the checked-in vision-language model, "
        "serves it, drives the robot with it, and reports: OUT/report.html, OUT/results.json.",
    )
    parser.add_argument("--out", type=pathlib.Path, help="default: demo, or demo_long with --long")
    parser.add_argument("--long", action="store_true", help="more of everything: under two hours")


def run(args: argparse.Namespace) -> int | None:
    """Runs the plan."""
    from rt2_jax.demo import long_plan, run_demo, short_plan

    folder = args.out or pathlib.Path("demo_long" if args.long else "demo")
    plan = (long_plan if args.long else short_plan)(folder)
    try:
        report = run_demo(plan)
    except KeyboardInterrupt:
        print("rt2 demo: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    print(f"\n{report}: open it in a browser")
    return 0
