"""`rt2 eval --watch`: evaluates the checkpoints of a run as they come, beside it."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rt2_jax.cli.eval_jobs import add_ema, which_params

if TYPE_CHECKING:
    from rt2_jax.evaluation.checkpoint_scores import CheckpointScores

_HEADLINES = ("mean/", "closed_loop/success", "pointing/grown")
_MEASURES = ("/vqa_accuracy", "/vqa_exact_match", "/cider_d")


def add_watch(verbs: argparse._SubParsersAction) -> None:
    """Adds `watch` to the verbs of `rt2 eval`; `rt2 eval --watch DIR` is the same."""
    parser = verbs.add_parser(
        "watch",
        help="evaluates each new checkpoint of a run; also: rt2 eval --watch MODEL_DIR",
        description="Evaluates each new checkpoint of a run until its last one, in a process of "
        "its own. Writes MODEL_DIR/eval/NAME.jsonl (a line for each), eval/best.json and event "
        "files for TensorBoard. Started again it goes on with what is missing. Exit status 1: a "
        "checkpoint could not be evaluated, or patience ran out; 130: stopped by SIGTERM or "
        "Ctrl-C.",
    )
    parser.add_argument("model_dir", type=pathlib.Path, help="of the run; it may not be there yet")
    steps = parser.add_argument_group("cached steps, as rt2 eval offline")
    steps.add_argument("--cache-dir", default="cache", help="default: %(default)s")
    steps.add_argument("--split", default="validation", help="default: %(default)s")
    steps.add_argument(
        "--task", action="append", default=[], help="default: all of the mixture; may be repeated"
    )
    steps.add_argument("--limit", type=int, help="steps of each task, evenly spread (default: all)")
    steps.add_argument("--no-offline", action="store_true", help="leaves cached steps out")
    loop = parser.add_argument_group("closed loop, as rt2 eval closed-loop")
    loop.add_argument("--closed-loop", nargs="+", metavar="SKILL", help="plays these skills too")
    loop.add_argument(
        "--episodes", type=int, default=100, help="of each skill (default: %(default)s)"
    )
    loop.add_argument(
        "--seed", type=int, default=10_000_000, help="of the first scene (default: %(default)s)"
    )
    loop.add_argument("--instruction", default="original", help="original or swapped")
    loop.add_argument("--renderer", default="ray", help="ray, osmesa or egl (default: ray)")
    loop.add_argument("--parallel", type=int, help="environments at once (default: 8)")
    pointing = parser.add_argument_group("pictures, as rt2 eval pointing")
    pointing.add_argument("--pictures", metavar="FOLDER", help="plays the pointing game too")
    pointing.add_argument("--place-levels", type=int, default=16, help="default: %(default)s")
    parser.add_argument(
        "--batch-size", type=int, default=32, help="examples at once (default: %(default)s)"
    )
    add_ema(parser)
    parser.add_argument(
        "--name", help="of the results (default: what is evaluated, e.g. validation-closed_loop)"
    )
    parser.add_argument(
        "--best",
        metavar="METRIC",
        help="what eval/best.json is chosen by (default: the first there is of "
        "closed_loop/success, mean/token_accuracy and mean/exact_answers)",
    )
    parser.add_argument("--best-mode", choices=("max", "min"), help="default: min for errors")
    parser.add_argument(
        "--newest", action="store_true", help="when behind, leaves out all but the newest"
    )
    parser.add_argument("--once", action="store_true", help="ends when no checkpoint waits")
    parser.add_argument(
        "--until-step", type=int, metavar="N", help="the last step (default: what the run says)"
    )
    parser.add_argument(
        "--poll", type=float, default=10.0, metavar="S", help="looks so often (default: 10)"
    )
    parser.add_argument(
        "--patience", type=float, metavar="S", help="ends when so long nothing new came"
    )
    parser.set_defaults(do=run_watch)


def watch_as_verb(arguments: list[str]) -> list[str]:
    """`--watch DIR` or `--watch=DIR` anywhere -> `watch DIR` in front."""
    for place, word in enumerate(arguments):
        if word == "--watch":
            rest = arguments[:place] + arguments[place + 2 :]
            return ["watch", *arguments[place + 1 : place + 2], *rest]
        if word.startswith("--watch="):
            rest = arguments[:place] + arguments[place + 1 :]
            return ["watch", word.removeprefix("--watch="), *rest]
    return arguments


def run_watch(args: argparse.Namespace) -> int:
    """Watches; returns the exit status."""
    from rt2_jax.evaluation.watch import WatchConfig, watch
    from rt2_jax.evaluation.watch_results import WatchResults

    config = WatchConfig(args.newest, args.once, args.until_step, args.poll, args.patience)
    scores = _scores(args)
    name = args.name or _name(args)

    def told(step: int, numbers: Mapping[str, float], seconds: float, best: bool) -> None:
        shown = [
            f"{key.removeprefix('mean/')} {value:.4f}"
            for key, value in numbers.items()
            if key.startswith(_HEADLINES) or key.endswith(_MEASURES)
        ]
        words = [f"step {step}", *shown, f"{seconds:.1f} s", *(["best"] if best else [])]
        print("  ".join(words), flush=True)

    with WatchResults(
        args.model_dir, name, scores.settings(), args.best, args.best_mode
    ) as results:
        if results.lines:
            _note(f"goes on with {results.path}: {len(results.done)} checkpoints are evaluated")
        try:
            outcome = watch(args.model_dir, scores, results, config, told, _note)
        except KeyboardInterrupt:
            _note(f"stopped; {results.path} is whole, the same command goes on with it")
            return 130
    if outcome.bad:
        _note(f"not evaluated: step {', '.join(map(str, outcome.bad))}")
    _note(f"{outcome.evaluated} checkpoints evaluated: {results.path}")
    return 0 if outcome.complete and not outcome.bad else 1


def _scores(args: argparse.Namespace) -> CheckpointScores:
    from rt2_jax.evaluation.checkpoint_scores import (
        CheckpointScores,
        OfflineSettings,
        PointingSettings,
    )

    suite = offline = pointing = None
    if args.closed_loop:
        from rt2_jax.evaluation.suite import Suite
        from rt2_jax.sim.render import RenderSettings

        suite = Suite(
            skills=tuple(args.closed_loop),
            episodes=args.episodes,
            seed=args.seed,
            instruction=args.instruction,
            render=RenderSettings(args.renderer),
        )
    if args.limit is not None and args.limit < 1:
        raise ValueError(f"--limit: found {args.limit}, expected 1 or more")
    if not args.no_offline:
        offline = OfflineSettings(args.cache_dir, args.split, tuple(args.task), args.limit)
    if args.pictures:
        pointing = PointingSettings(args.pictures, args.place_levels, args.limit)
    return CheckpointScores(
        offline, suite, pointing, args.batch_size, args.parallel, which=which_params(args.ema)
    )


def _name(args: argparse.Namespace) -> str:
    parts = [] if args.no_offline else [args.split]
    parts += ["closed_loop"] if args.closed_loop else []
    parts += ["pointing"] if args.pictures else []
    parts += ["ema"] if args.ema else []
    return "-".join(parts)


def _note(text: str) -> None:
    print(f"rt2 eval: {text}", file=sys.stderr, flush=True)
