"""`rt2 sim`: what the table-top world holds, recording demonstrations in it, playing policies."""

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

if TYPE_CHECKING:
    from rt2_jax.sim.render import RenderSettings

_MANY_FAILURES = 0.05  # share of the episodes that is worth a warning
_FILM_SIZE = (320, 320)  # pixels


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `rt2 sim` and its verbs."""
    parser = subparsers.add_parser("sim", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_list(verbs)
    _add_record(verbs)
    _add_stills(verbs)
    _add_rollout(verbs)


def run(args: argparse.Namespace) -> int | None:
    """Does what the verb asks; returns the exit status."""
    try:
        return args.do(args)
    except RuntimeError as error:  # from `import mujoco`
        if "MUJOCO_GL" not in str(error):
            raise
        raise ValueError(f"{error}; unset it, or choose egl or osmesa") from error


def _add_list(verbs: argparse._SubParsersAction) -> None:
    text = "what the world holds, and what can be chosen"
    parser = verbs.add_parser("list", help=text, description=f"Prints {text}.")
    _add_world(parser)
    parser.set_defaults(do=_list)


def _add_record(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "record",
        help="record demonstrations into an RLDS data set",
        description="Records demonstrations into OUT/rt2_tabletop/2.0.0, which "
        "tfds.builder_from_directory reads. The same command continues an interrupted recording.",
    )
    parser.add_argument("--out", required=True, help="folder; made if need be")
    parser.add_argument("--skills", default="reach,push", help="in turn (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=300, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene; one more each")
    parser.add_argument("--policy", default="expert", help="default: %(default)s")
    _add_noise(parser, "disturbs what is executed, not the action to imitate")
    parser.add_argument("--cameras", default="front", help="default: %(default)s")
    parser.add_argument("--image-format", default="png", help="png or jpeg (default: %(default)s)")
    parser.add_argument(
        "--shard-episodes", type=int, default=25, help="episodes per file (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, help="processes (default: one per processor)")
    _add_pictures(parser)
    _add_world(parser)
    parser.set_defaults(do=_record)


def _add_stills(verbs: argparse._SubParsersAction) -> None:
    parser = verbs.add_parser(
        "pictures",
        help="draw pictures of the world's things, as web data",
        description="Draws OUT/rt2_pictures/{train,validation} without a robot, in COCO's format: "
        "captions, boxes, questions. The same command continues where it was interrupted.",
    )
    parser.add_argument("--out", required=True, help="folder; made if need be")
    parser.add_argument("--scenes", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--validation-scenes", type=int, default=500, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene; one more each")
    parser.add_argument(
        "--objects", type=int, nargs=2, default=(1, 6), metavar=("LEAST", "MOST"), help="in a scene"
    )
    parser.add_argument(
        "--styles",
        default="front,mirrored,moved,top",
        help="a picture of each scene in each (default: %(default)s)",
    )
    parser.add_argument(
        "--symbols", action="store_true", help="cubes with letters too; not with style mirrored"
    )
    parser.add_argument("--size", type=int, default=64, help="pixels (default: %(default)s)")
    parser.add_argument("--jobs", type=int, help="processes (default: one per processor)")
    _add_world(parser)
    parser.set_defaults(do=_draw_stills)


def _add_rollout(verbs: argparse._SubParsersAction) -> None:
    text = "plays episodes and counts the successes"
    parser = verbs.add_parser("rollout", help=text, description=text.capitalize() + ".")
    parser.add_argument("--policy", default="expert", help="default: %(default)s")
    parser.add_argument("--skill", default="reach", help="default: %(default)s")
    parser.add_argument("--episodes", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene; one more each")
    _add_noise(parser, "disturbs what is executed")
    parser.add_argument(
        "--swap-instruction", action="store_true", help="name other objects than are judged"
    )
    parser.add_argument("--video", metavar="F.gif", help="a film of all episodes")
    parser.add_argument("--jsonl", metavar="F", help="a line of JSON for each episode")
    _add_pictures(parser)
    _add_world(parser)
    parser.set_defaults(do=_rollout)


def _add_noise(parser: argparse.ArgumentParser, text: str) -> None:
    text += ": standard deviation of each axis (default: %(default)s)"
    parser.add_argument("--noise", type=float, default=0.0, metavar="METRES", help=text)
    parser.add_argument(
        "--noise-rate", type=float, default=1.0, metavar="R", help="disturbs a part R of the steps"
    )


def _add_world(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--world", metavar="F.toml", help="scene vocabulary (default: built in)")


def _add_pictures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--renderer", default="ray", help="ray, osmesa or egl (default: ray)")
    parser.add_argument("--size", type=int, default=64, help="pixels (default: %(default)s)")
    parser.add_argument("--height", type=int, help="pixels (default: SIZE)")
    parser.add_argument("--width", type=int, help="pixels (default: SIZE)")


def _render_settings(args: argparse.Namespace) -> RenderSettings:
    from rt2_jax.sim.render import RenderSettings

    height = args.size if args.height is None else args.height
    width = args.size if args.width is None else args.width
    settings = RenderSettings(args.renderer, height, width)
    problem = _renderer_problem(args.renderer)
    if problem:
        raise ValueError(problem)
    return settings


def _renderer_problem(renderer: str) -> str:
    """Why this renderer doesn't work here; empty if it does."""
    from rt2_jax.sim.render.probe import probe

    if renderer == "ray":
        return ""
    try:
        probe(renderer)
    except RuntimeError as error:
        return str(error)
    return ""


def _list(args: argparse.Namespace) -> None:
    from rt2_jax.sim.mjcf import CAMERAS
    from rt2_jax.sim.policies import POLICIES
    from rt2_jax.sim.render import RENDERERS
    from rt2_jax.sim.simulation import EMBODIMENT, STATE_FIELDS, TABLETOP_ACTIONS
    from rt2_jax.sim.world import load_world

    world = load_world(args.world)
    print(f"world {world.name} ({world.hash[:12]}), robot {EMBODIMENT}")
    low, high = world.scene.objects
    print(f"scenes of {low} to {high} objects")
    for name, skill in world.skills.items():
        print(f"skill {name}: {' | '.join(skill.templates)}")
    for title, names in (
        ("shapes", world.shapes),
        ("colours", world.colours),
        ("symbols", world.symbols),
        ("tables", world.tables),
        ("places", world.places),
        ("cameras", CAMERAS),
        ("policies", POLICIES),
        ("state", STATE_FIELDS),
    ):
        print(f"{title}: {', '.join(names)}")
    for renderer in RENDERERS:
        print(f"renderer {renderer}: {_renderer_problem(renderer) or 'works here'}")
    print(f"actions {TABLETOP_ACTIONS.describe()}")


def _record(args: argparse.Namespace) -> int:
    from rt2_jax.sim.record import RecordSettings, record
    from rt2_jax.sim.world import load_world

    settings = RecordSettings(
        skills=tuple(args.skills.split(",")),
        episodes=args.episodes,
        seed=args.seed,
        policy=args.policy,
        noise=args.noise,
        noise_rate=args.noise_rate,
        cameras=tuple(args.cameras.split(",")),
        image_format=args.image_format,
        render=_render_settings(args),
        world=load_world(args.world),
        shard_episodes=args.shard_episodes,
    )
    total = settings.episodes
    try:
        with _progress(total, "episodes recorded") as report:
            recording = record(settings, args.out, jobs=args.jobs, report=report)
    except KeyboardInterrupt:
        return _interrupted(args.out)
    print(f"{recording.directory}: complete, {recording.successes}/{total} episodes succeeded")
    failures = total - recording.successes
    if failures > _MANY_FAILURES * total:
        print(
            f"rt2 sim: warning: {failures / total:.0%} of the episodes are failures; readers tell "
            "them by episode_metadata/success",
            file=sys.stderr,
        )
    return 0


def _draw_stills(args: argparse.Namespace) -> int:
    from rt2_jax.sim.pictures import PictureSettings, draw_pictures
    from rt2_jax.sim.world import load_world

    settings = PictureSettings(
        scenes=args.scenes,
        validation_scenes=args.validation_scenes,
        seed=args.seed,
        objects=tuple(args.objects),
        symbols=args.symbols,
        styles=tuple(args.styles.split(",")),
        size=args.size,
        world=load_world(args.world),
    )
    total = settings.scenes + settings.validation_scenes
    try:
        with _progress(total, "scenes drawn") as report:
            folder = draw_pictures(settings, args.out, jobs=args.jobs, report=report)
    except KeyboardInterrupt:
        return _interrupted(args.out)
    print(f"{folder}: complete, {total} scenes in {len(settings.styles)} styles")
    return 0


def _interrupted(out: str) -> int:
    print(
        f"rt2 sim: interrupted: the finished files are kept in {out}; run the same command again "
        "to continue",
        file=sys.stderr,
    )
    return 130


@contextlib.contextmanager
def _progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Shows how many of them are done: a bar on a terminal, elsewhere ten lines."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _report_lines(total, what)
        return
    rate = TextColumn("{task.fields[rate]:.1f}/s")
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), rate)
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total, rate=0.0)
        yield lambda done: bar.update(task, completed=done, rate=bar.tasks[task].speed or 0.0)


def _report_lines(total: int, what: str) -> Callable[[int], None]:
    start, told = time.monotonic(), -1

    def report(done: int) -> None:
        nonlocal told
        tenth = 10 * done // total
        if tenth > told:
            told = tenth
            seconds = time.monotonic() - start
            print(f"{done}/{total} {what}, {seconds:.0f} s", file=sys.stderr, flush=True)

    return report


def _rollout(args: argparse.Namespace) -> None:
    from rt2_jax.sim.env import TabletopEnv
    from rt2_jax.sim.film import Film
    from rt2_jax.sim.policies import DisturbedPolicy, make_policy
    from rt2_jax.sim.render import RenderSettings
    from rt2_jax.sim.rollout import outcome, play
    from rt2_jax.sim.world import load_world

    if args.episodes < 1:
        raise ValueError(f"episodes: found {args.episodes}, expected 1 or more")
    world = load_world(args.world)
    env = TabletopEnv(args.skill, world=world, render=_render_settings(args))
    policy = make_policy(args.policy, env)
    if args.noise:
        policy = DisturbedPolicy(policy, env, args.noise, args.noise_rate)
    film = Film(args.video, RenderSettings(args.renderer, *_FILM_SIZE)) if args.video else None
    successes = steps_played = 0
    with pathlib.Path(args.jsonl).open("w") if args.jsonl else contextlib.nullcontext() as lines:
        for seed in range(args.seed, args.seed + args.episodes):
            watch = film.watch if film else None
            steps = list(
                play(env, policy, seed, swap_instruction=args.swap_instruction, watch=watch)
            )
            end = outcome(env, steps)
            successes += end.success
            steps_played += end.steps
            verdict = "success" if end.success else f"failure: {end.reason}"
            length = f"{end.steps} steps, {end.distance:.3f} m"
            print(f"seed {seed}: {end.instruction!r}, {length}, {verdict}")
            if lines:
                print(json.dumps(dataclasses.asdict(end)), file=lines, flush=True)
            if film:
                film.end_episode(end)
    count, mean = f"{successes}/{args.episodes}", steps_played / args.episodes
    print(f"{args.policy}, {args.skill}: {count} successes, {mean:.1f} steps on average")
    if film:
        film.save()
        print(f"film: {args.video}")
