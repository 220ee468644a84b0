"""`rt2 data show`, `inspect` and `stats`: what is in a mixture."""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from rt2_jax.cli.data_progress import reading

if TYPE_CHECKING:
    from rt2_jax.data.mixture_report import PlannedRun

DIFFERENT = 1  # exit status of `stats --against`


def add_reports(
    verbs: argparse._SubParsersAction, add_verb: Callable[..., argparse.ArgumentParser]
) -> None:
    """Adds `show`, `inspect` and `stats` to the verbs of `rt2 data`."""
    show = add_verb(verbs, "show", _show, "shares, tokens, padding and epochs of a cached mixture")
    show.add_argument("name", metavar="MIXTURE", help="mixture or task; all of it is cached")
    show.add_argument("--steps", type=int, help="of a planned run")
    show.add_argument("--batch-size", type=int, help="of a planned run, in examples")
    show.add_argument("--encoder-length", type=int, help="default: that of the longest prompt")
    show.add_argument("--decoder-length", type=int, help="default: that of the longest answer")
    show.add_argument(
        "--gin-file",
        action="append",
        default=[],
        metavar="RUN",
        help="takes all of this, codec, plan length and loss weights from a training run",
    )
    inspect = add_verb(verbs, "inspect", _inspect, "writes a page that shows what is in a mixture")
    inspect.add_argument("name", metavar="MIXTURE", help="mixture or task, cached or not")
    inspect.add_argument("--out", default="report.html", help="default: %(default)s")
    inspect.add_argument("--steps", type=int, default=6, help="of each task (default: %(default)s)")
    inspect.add_argument(
        "--films", type=int, default=2, help="whole episodes of each task (default: %(default)s)"
    )
    stats = add_verb(verbs, "stats", _stats, "statistics of actions, clipping, differences")
    stats.epilog = "Exit status: 0, 1 where --against finds a difference, 2 bad input."
    stats.add_argument("name", help="task or mixture, cached or not")
    stats.add_argument("--out", metavar="FILE", help="writes the statistics there")
    stats.add_argument(
        "--against", metavar="FILE", help="statistics of --out, or a manifest of rt2 data resolve"
    )
    stats.add_argument(
        "--tolerance",
        type=float,
        default=0.02,
        help="of q01 and q99, as a part of the file's q01..q99 (default: %(default)s)",
    )
    for parser in (show, inspect):
        parser.add_argument(
            "--vocabulary", help="name or file of a SentencePiece (default: rt2_8k)"
        )
    for parser in (show, stats):
        parser.add_argument("--json", action="store_true", help="prints JSON instead of a table")
    for parser in (show, inspect, stats):
        parser.add_argument("--split", default="train", help="default: %(default)s")
        parser.add_argument("--cache-dir", default="cache", help="default: %(default)s")


def _show(args: argparse.Namespace) -> None:
    from rt2_jax.data.mixture_report import report_mixture
    from rt2_jax.data.vocabulary.tokenizer import load_vocabulary

    run, vocabulary = _planned(args)
    tokenizer = load_vocabulary(args.vocabulary or vocabulary)
    report = report_mixture(args.name, args.cache_dir, args.split, tokenizer, run)
    print(json.dumps(report.to_json(), indent=1) if args.json else report.describe())


def _planned(args: argparse.Namespace) -> tuple[PlannedRun, str]:
    """The planned run and its vocabulary; flags win over a gin file."""
    from rt2_jax.data.mixture_report import PlannedRun

    flags = {name: getattr(args, name) for name in ("steps", "batch_size")}
    flags |= {name: getattr(args, name) for name in ("encoder_length", "decoder_length")}
    if not args.gin_file:
        return PlannedRun(**flags), "rt2_8k"
    from rt2_jax.training.gin_files import load_run_config

    config, _ = load_run_config(args.gin_file)
    planned = {
        "steps": config.loop.total_steps,
        "batch_size": config.global_batch_size,
        "encoder_length": config.encoder_length,
        "decoder_length": config.decoder_length,
    }
    planned |= {name: value for name, value in flags.items() if value is not None}
    run = PlannedRun(
        **planned,
        horizon=config.codec.horizon,
        plan_length=config.plan_length,
        state_numbers=len(config.state_fields),
        source_weights=dict(config.source_weights),
    )
    return run, config.vocabulary


def _inspect(args: argparse.Namespace) -> None:
    from rt2_jax.data.inspection import inspect_mixture
    from rt2_jax.data.inspection_page import inspection_page
    from rt2_jax.data.vocabulary.tokenizer import load_vocabulary

    if args.steps < 1 or args.films < 0:
        raise ValueError(
            f"found --steps {args.steps} --films {args.films}, expected 1 and 0 or more"
        )
    out = pathlib.Path(args.out)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: there is no folder {out.parent}")
    tokenizer = load_vocabulary(args.vocabulary or "rt2_8k")
    with reading("inspect") as report:
        tasks = inspect_mixture(
            args.name,
            args.split,
            tokenizer,
            cache_dir=args.cache_dir,
            steps=args.steps,
            films=args.films,
            report=report,
        )
    out.write_text(inspection_page(args.name, args.split, tasks, tokenizer), encoding="utf-8")
    print(f"{out}: {len(tasks)} tasks, {out.stat().st_size / 1e6:.1f} MB")


def _stats(args: argparse.Namespace) -> int:
    from rt2_jax.actions.statistics import StatisticsTable
    from rt2_jax.data.manifest import load_statistics
    from rt2_jax.data.statistics_report import (
        compare,
        differences_table,
        measure_statistics,
        to_json,
    )

    if not args.tolerance >= 0:
        raise ValueError(f"--tolerance: found {args.tolerance}, expected 0 or more")
    other = load_statistics(args.against)[0] if args.against else None  # known before the reading
    with reading("stats") as report:
        measured = measure_statistics(args.name, args.split, args.cache_dir, report)
    differences = compare(measured, other) if other else None
    if args.out:
        StatisticsTable(tuple(each.statistics for each in measured)).save(args.out)
    if args.json:
        print(json.dumps(to_json(measured, differences), indent=1))
    else:
        print("\n\n".join(each.describe() for each in measured))
        if differences is not None:
            print(f"\n{differences_table(differences, args.tolerance)}")
    wide = any(each.share > args.tolerance for each in differences or ())
    return DIFFERENT if wide else 0
