"""`rt2 eval closed-loop`: plays a policy in the table-top world and counts its successes."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rt2_jax.cli.eval_jobs import add_ema, which_params

if TYPE_CHECKING:
    from rt2_jax.evaluation.policy_sources import LocalPolicy, PolicySource

_FILMS = 3  # of each skill's successes, and of its failures
_DEFAULT_SEEDS_OF_RECORDINGS = 1_000_000  # below it a seed may well have been recorded


def add_closed_loop(verbs: argparse._SubParsersAction) -> None:
    """Adds `closed-loop` to the verbs of `rt2 eval`."""
    parser = verbs.add_parser(
        "closed-loop",
        help="plays a policy in the table-top world and counts its successes",
        description="Plays a policy in the table-top world and counts its successes, with 95 % "
        "Clopper-Pearson intervals. Every policy meets the same scenes. With --out the same "
        "command continues an interrupted evaluation.",
    )
    parser.add_argument(
        "policy",
        metavar="POLICY",
        help="ws://HOST:PORT, a checkpoint, pretrained:NAME, or expert|random|nothing",
    )
    parser.add_argument("--skill", nargs="+", default=["reach", "push"], help="default: reach push")
    parser.add_argument(
        "--episodes", type=int, default=100, help="of each skill (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=10_000_000, help="of the first scene (default: %(default)s)"
    )
    parser.add_argument(
        "--instruction",
        default="original",
        help="original, or swapped: told another object's name, judged on the original "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--parallel", type=int, help="environments at once (default: processors; 8 for a model)"
    )
    add_ema(parser)
    parser.add_argument("--out", metavar="F.jsonl", help="a line of JSON for each episode")
    parser.add_argument("--name", help="of the policy in the results (default: POLICY)")
    parser.add_argument(
        "--against", metavar="F.jsonl", help="another policy's results: McNemar's exact test"
    )
    parser.add_argument(
        "--recording",
        action="append",
        default=[],
        metavar="DIR",
        help="what the policy was trained on: its seeds are refused (may be repeated)",
    )
    parser.add_argument("--video", metavar="DIR", help="films of some successes and failures")
    parser.add_argument("--json", metavar="F", help="writes the table's numbers there, too")
    parser.add_argument("--cameras", help="default: what the model was trained on, or front")
    parser.add_argument("--renderer", default="ray", help="ray, osmesa or egl (default: ray)")
    parser.add_argument("--size", type=int, help="pixels; default: the model's, or 64")
    parser.add_argument("--world", metavar="F.toml", help="scene vocabulary (default: built in)")
    parser.add_argument("--token-file", metavar="F", help="the server's bearer token")
    parser.add_argument(
        "--patience",
        type=float,
        default=60.0,
        metavar="S",
        help="how long a server may be away, or still starting (default: %(default)s)",
    )
    parser.set_defaults(do=run_closed_loop)


def run_closed_loop(args: argparse.Namespace) -> int:
    """Evaluates and prints; returns the exit status."""
    from rt2_jax.data.recording import read_recording
    from rt2_jax.evaluation.closed_loop import evaluate, read_evaluation
    from rt2_jax.evaluation.films import choose, film
    from rt2_jax.evaluation.models import seen_pictures
    from rt2_jax.evaluation.suite import Suite
    from rt2_jax.sim.render import RenderSettings
    from rt2_jax.sim.world import load_world

    suite = Suite(
        skills=tuple(args.skill),
        episodes=args.episodes,
        seed=args.seed,
        instruction=args.instruction,
        render=RenderSettings(args.renderer),
        world=load_world(args.world),
    )
    recordings = [read_recording(directory).info for directory in args.recording]
    for recording in recordings:
        suite.refuse_recorded_scenes(recording)
    against = read_evaluation(args.against, suite.scenes) if args.against else None
    if args.seed < _DEFAULT_SEEDS_OF_RECORDINGS and not recordings:
        _note(
            f"warning: scenes {args.seed} to {args.seed + args.episodes - 1} may have been "
            "recorded; name the recording with --recording, or leave --seed out"
        )
    if args.json:
        pathlib.Path(args.json).open("a").close()  # known before the play
    source = _source(args)
    cameras, (height, width) = seen_pictures(source, ("front",), (64, 64))
    if args.cameras is not None:
        cameras = tuple(args.cameras.split(","))
    if args.size is not None:
        height = width = args.size
    render = RenderSettings(args.renderer, height, width)
    suite = dataclasses.replace(suite, cameras=cameras, render=render)
    try:
        with _progress(len(suite.scenes)) as report:
            evaluation = evaluate(
                suite,
                source,
                out=args.out,
                parallel=args.parallel,
                recordings=recordings,
                patience_s=args.patience,
                report=report,
                note=_note,
            )
    except KeyboardInterrupt:
        kept = f"; run the same command again to continue {args.out}" if args.out else ""
        _note(f"interrupted{kept}")
        return 130
    films = (
        film(suite, choose(evaluation.results, _FILMS, _FILMS), args.video) if args.video else []
    )
    compared = evaluation.compare(against) if against else {}
    if args.json:
        data = {**evaluation.to_json(), "films": list(map(str, films))}
        if against:
            skills = {skill: each.to_json() for skill, each in compared.items()}
            data["against"] = {"policy": against.policy, "skills": skills}
        pathlib.Path(args.json).write_text(json.dumps(data, indent=1) + "\n")
    print(evaluation.table())
    for skill, each in compared.items():
        assert against is not None
        print(f"{skill}, {evaluation.policy} against {against.policy}: {each}")
    for path in films:
        print(f"film: {path}")
    return 0


def _source(args: argparse.Namespace) -> PolicySource | LocalPolicy:
    from rt2_jax.evaluation.models import local_engine, remote
    from rt2_jax.evaluation.policy_sources import ALIASES, NamedPolicy
    from rt2_jax.sim.policies import POLICIES

    name = args.name or args.policy + (" (ema)" if args.ema else "")
    is_checkpoint = args.policy.startswith("pretrained:") or pathlib.Path(args.policy).is_dir()
    if args.ema and not is_checkpoint:
        raise ValueError(
            f"--ema chooses the parameters of a checkpoint, found the policy {args.policy!r}; a "
            "server has a flag --ema of its own"
        )
    if args.policy.startswith(("ws://", "wss://")):
        token = pathlib.Path(args.token_file).read_text().strip() if args.token_file else None
        return remote(args.policy, name=name, token=token, patience_s=args.patience)
    if args.policy in (*POLICIES, *ALIASES):
        return NamedPolicy(ALIASES.get(args.policy, args.policy), name)
    if is_checkpoint:
        return local_engine(args.policy, name=name, which=which_params(args.ema))
    raise ValueError(
        f"policy: found {args.policy!r}, expected ws://HOST:PORT, a checkpoint's directory, "
        f"pretrained:NAME, or one of {', '.join((*POLICIES, *ALIASES))}"
    )


def _note(text: str) -> None:
    print(f"rt2 eval: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int, int], None]]:
    """Shows how many episodes have ended and how many of them well."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _report_lines(total)
        return
    successes = TextColumn("{task.fields[successes]} successes")
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), successes)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("episodes", total=total, successes=0)
        yield lambda done, count: bar.update(task, completed=done, successes=count)


def _report_lines(total: int) -> Callable[[int, int], None]:
    start = time.monotonic()

    def report(done: int, successes: int) -> None:
        if done % max(1, total // 10) == 0 or done == total:
            seconds = time.monotonic() - start
            _note(f"{done}/{total} episodes, {successes} successes, {seconds:.0f} s")

    return report
