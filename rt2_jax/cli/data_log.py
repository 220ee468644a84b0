"""`rt2 data import-log`: what a server logged as a data set."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable

from rt2_jax.cli.data_progress import reading


def add_import_log(
    verbs: argparse._SubParsersAction, add_verb: Callable[..., argparse.ArgumentParser]
) -> None:
    """Adds `import-log` to the verbs of `rt2 data`."""
    parser = add_verb(
        verbs, "import-log", _import_log, "writes what a policy server logged as RLDS"
    )
    parser.epilog = "Prints the lines of Python that register it as a task."
    parser.add_argument("log_dir", help="of `rt2 serve --log-dir`, or one of the folders in it")
    parser.add_argument("out", help="folder of data sets; this one becomes OUT/NAME/1.0.0")
    parser.add_argument("--name", default="request_log", help="default: %(default)s")
    parser.add_argument(
        "--session",
        action="append",
        default=[],
        help="only this one, or a pattern such as 'arm-1/*'; may be given again",
    )
    parser.add_argument(
        "--gap",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="a longer pause ends an episode (default: %(default)g)",
    )
    parser.add_argument(
        "--min-steps",
        type=int,
        default=2,
        help="shorter episodes are left out (default: %(default)s)",
    )


def _import_log(args: argparse.Namespace) -> None:
    from rt2_jax.data.log_import import describe_import, import_log
    from rt2_jax.data.log_registration import registration

    with reading("import-log") as report:
        result = import_log(
            args.log_dir,
            args.out,
            name=args.name,
            sessions=args.session,
            gap_s=args.gap,
            min_steps=args.min_steps,
            report=functools.partial(report, args.name),
        )
    for line in describe_import(result):
        print(line, file=sys.stderr)
    print(registration(result), end="")
