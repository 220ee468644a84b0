"""`rt2 data`: what is registered, what is in it and wrong with it; caching and resolving it."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable

from rt2_jax.cli.data_check import add_check
from rt2_jax.cli.data_log import add_import_log
from rt2_jax.cli.data_progress import reading
from rt2_jax.cli.data_reports import add_reports
from rt2_jax.cli.passed_on import PASSED_ON

_BUILT_IN = "rt2_jax.tasks.mixtures"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `rt2 data` and its verbs."""
    parser = subparsers.add_parser("data", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_verb(verbs, "list", _list, "prints all tasks and mixtures, and what they would read")
    tokens = _add_verb(verbs, "tokens", _tokens, "prints steps as the text and tokens of a model")
    tokens.add_argument("name", help="task or mixture")
    tokens.add_argument("--steps", type=int, default=2, help="of each task (default: %(default)s)")
    tokens.add_argument("--vocabulary", default="rt2_8k", help="name or file of a SentencePiece")
    cache = _add_verb(verbs, "cache", _cache, "caches a task, or all tasks of a mixture")
    cache.add_argument("name", help="task or mixture")
    cache.add_argument(
        "--shard-steps", type=int, default=10_000, help="steps to a file (default: %(default)s)"
    )
    who = cache.add_mutually_exclusive_group()
    who.add_argument(
        "--jobs", type=int, default=1, help="processes, each with its TensorFlow (default: 1)"
    )
    who.add_argument(
        "--runner",
        metavar="NAME",
        help="of Apache Beam, e.g. DataflowRunner; what stands behind -- are options of it",
    )
    cache.set_defaults(**{PASSED_ON: []})
    resolve = _add_verb(verbs, "resolve", _resolve, "writes a cached mixture's manifest")
    resolve.add_argument("name", help="mixture or task")
    resolve.add_argument(
        "--statistics",
        help="manifest of another mixture, or a table of statistics, that holds for its robots",
    )
    resolve.add_argument(
        "--uncached",
        action="store_true",
        help="tasks without a cache are read through SeqIO in training: no exact restarts",
    )
    rlds = _add_verb(verbs, "to-rlds", _to_rlds, "writes a robot task, all splits, as RLDS")
    rlds.add_argument("name", help="task, or mixture of robot tasks")
    rlds.add_argument("out", help="folder of data sets; the task's becomes OUT/TASK/1.0.0")
    add_reports(verbs, _add_verb)
    add_check(verbs, _add_verb)
    add_import_log(verbs, _add_verb)
    for parser in (tokens, cache, resolve):
        parser.add_argument("--split", default="train", help="default: %(default)s")
    for parser in (cache, resolve):
        parser.add_argument("--cache-dir", default="cache", help="default: %(default)s")


def run(args: argparse.Namespace) -> int | None:
    """Does what the verb asks; returns the exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if args.data_dir:
        os.environ["RT2_DATA_DIR"] = args.data_dir
    # Imported here, since it needs SeqIO, which `rt2 data --help` does not.
    from rt2_jax.data.task_modules import import_tasks

    for module in _modules(args):
        import_tasks(module)
    return args.do(args)


def _modules(args: argparse.Namespace) -> tuple[str, ...]:
    return (_BUILT_IN, *args.module)


def _add_verb(
    verbs: argparse._SubParsersAction,
    name: str,
    do: Callable[[argparse.Namespace], int | None],
    text: str,
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.add_argument(
        "--module",
        action="append",
        default=[],
        help="Python module that registers tasks of your own; may be given again",
    )
    parser.add_argument("--data-dir", help="where data are (default: $RT2_DATA_DIR, or data)")
    parser.set_defaults(do=do)
    return parser


def _list(args: argparse.Namespace) -> None:
    from rt2_jax.data.preview import describe_registry

    for line in describe_registry():
        print(line)


def _tokens(args: argparse.Namespace) -> None:
    from rt2_jax.data.preview import describe_tokens
    from rt2_jax.data.vocabulary.tokenizer import load_vocabulary

    tokenizer = load_vocabulary(args.vocabulary)
    for line in describe_tokens(args.name, args.split, args.steps, tokenizer):
        print(line)


def _cache(args: argparse.Namespace) -> int:
    from rt2_jax.data.cache_beam import on_beam
    from rt2_jax.data.cache_processes import in_processes
    from rt2_jax.data.cache_writer import cache_task
    from rt2_jax.data.resolve import find_tasks

    flags = getattr(args, PASSED_ON)
    if args.runner:
        run = on_beam(args.runner, flags, _modules(args))
    elif flags:
        raise ValueError(f"{' '.join(flags)} behind -- is for Apache Beam, which needs --runner")
    else:
        run = in_processes(args.jobs, _modules(args))
    for task, _ in find_tasks(args.name):
        try:
            with reading("cache") as report:
                info = cache_task(
                    task,
                    args.cache_dir,
                    split=args.split,
                    shard_steps=args.shard_steps,
                    report=functools.partial(report, task.name),
                    run=run,
                )
        except KeyboardInterrupt:
            print(
                f"rt2 data: interrupted: what is finished is kept in {args.cache_dir}; run the "
                "same command again to continue",
                file=sys.stderr,
            )
            return 130
        size = sum(file.size for file in info.files) / 1e6
        print(
            f"{task.name} {args.split}: {info.steps} steps of {info.episodes} episodes, "
            f"{size:.1f} MB in {len(info.files)} files, hash {info.hash[:12]}"
        )
        if info.statistics:
            print(info.statistics.describe())
    return 0


def _to_rlds(args: argparse.Namespace) -> None:
    from rt2_jax.data.resolve import find_tasks
    from rt2_jax.data.rlds_export import export_rlds

    for task, _ in find_tasks(args.name):
        with reading("to-rlds") as report:
            path = export_rlds(task, args.out, report=functools.partial(report, task.name))
        print(path)


def _resolve(args: argparse.Namespace) -> None:
    from rt2_jax.data.cache import StepCache
    from rt2_jax.data.manifest import manifest_path, open_caches
    from rt2_jax.data.resolve import resolve_mixture

    manifest = resolve_mixture(
        args.name,
        args.cache_dir,
        split=args.split,
        statistics=args.statistics,
        uncached=args.uncached,
    )
    for task in manifest.tasks:
        held = f"{task.steps} steps of {task.episodes} episodes"
        if task.cache_hash is None:
            held = "not cached, read through SeqIO in training: a restart will not go on exactly"
        print(f"{task.share:6.1%}  {task.info.name}: {held}")
    caches = open_caches(manifest, args.cache_dir)
    for task, cache in zip(manifest.tasks, caches, strict=True):
        robot = task.info.robot
        if robot is not None and isinstance(cache, StepCache):
            statistics = manifest.statistics.get(robot.embodiment, robot.action_space)
            print(f"{task.info.name}: {statistics.describe(cache.actions())}")
    path = manifest_path(args.cache_dir, args.name, args.split)
    print(f"{path}: hash {manifest.hash[:12]}")
