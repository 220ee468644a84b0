"""`rt2 train`: trains what gin files describe, from where it was stopped."""

from __future__ import annotations

import argparse
import ast
import pathlib
import sys
import time
from collections.abc import Sequence

NOT_FINITE = 1  # the run gave up; its latest checkpoint is whole
STOPPED = 143  # as a process that SIGTERM ended; the run is saved and goes on when started again


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `rt2 train`."""
    parser = subparsers.add_parser(
        "train",
        description=__doc__,
        epilog="--gin.NAME=VALUE sets a macro, --gin.CLASS.parameter=VALUE a parameter; a value "
        "that is no gin literal is text. Exit status 143: stopped by SIGTERM, saved; 1: the loss "
        "stayed not finite.",
    )
    parser.add_argument(
        "--gin-file",
        action="append",
        required=True,
        help="a path, or one below rt2_jax/gin_configs; may be given again, later ones win",
    )
    parser.add_argument("--gin-binding", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument(
        "--gin-search-paths",
        type=lambda text: text.split(","),
        default=[],
        help="folders to look for gin files in too, with commas between",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="prints configuration, parameters, bytes and mixture; trains and writes nothing. Of a "
        "gin file of a model alone (models/...) it prints the parameters of its parts",
    )
    parser.add_argument(
        "--replay",
        type=int,
        metavar="STEP",
        help="computes a step of the run once more (skipped_steps.jsonl has those that were "
        "skipped) and says which examples and gradients are not finite; writes nothing",
    )
    parser.add_argument(
        "--replay-exactly",
        action="store_true",
        help="with --replay: takes the steps from the nearest checkpoint on too",
    )
    parser.add_argument(
        "--module",
        action="append",
        default=[],
        help="Python module that registers tasks, for those of the mixture that are not cached",
    )
    parser.add_argument("--compilation-cache", help="folder where compiled programs are kept")
    parser.add_argument("--coordinator-address", help="of process 0, HOST:PORT, on many hosts")
    parser.add_argument("--process-count", type=int, help="with --coordinator-address")
    parser.add_argument("--process-index", type=int, help="with --coordinator-address")
    parse = parser.parse_known_args

    def parse_known_args(args=None, namespace=None):  # type: ignore[no-untyped-def]
        return parse([_as_binding(argument) for argument in args or ()], namespace)

    parser.parse_known_args = parse_known_args


def run(args: argparse.Namespace) -> int | None:
    """Prepares the run, prints what it is, trains; returns the exit status."""
    import jax

    if args.replay_exactly and args.replay is None:
        raise ValueError("--replay-exactly goes with --replay STEP")
    if args.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", args.compilation_cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if args.coordinator_address:
        jax.distributed.initialize(args.coordinator_address, args.process_count, args.process_index)
    from rt2_jax.models.parts import model_parts
    from rt2_jax.training import report
    from rt2_jax.training.gin_files import load_model_config, load_run_config
    from rt2_jax.training.logs import TerminalLog
    from rt2_jax.training.loop import NotFiniteError
    from rt2_jax.training.lora import base_of
    from rt2_jax.training.run import execute, prepare

    if args.module:
        from rt2_jax.data.task_modules import import_tasks  # imports TensorFlow

        for module in args.module:
            import_tasks(module)
    files = (args.gin_file, args.gin_binding, args.gin_search_paths)
    if args.dry_run and (model := load_model_config(*files)) is not None:
        start = time.perf_counter()
        print(report.parts_table(report.abstract_parts(model)))
        print(f"\nshapes computed in {time.perf_counter() - start:.1f} s, without memory")
        return 0
    config, text = load_run_config(*files)
    prepared = prepare(config)
    first = jax.process_index() == 0
    if args.replay is not None:
        from rt2_jax.training.replay import replay

        found = replay(prepared, args.replay, args.replay_exactly)
        if first:
            print(found.text())
        return 0
    tables = [report.data_table(prepared), report.bins_table(prepared)]
    if args.dry_run:
        abstract = base_of(prepared.initializer.abstract.params)
        parts = report.parts_table(model_parts(config.model, abstract))
        tables = [text.strip(), report.parameter_table(prepared), parts, *tables]
        tables.append(report.batch_table(prepared))
    tables.append(report.memory_table(prepared))
    if first:
        print(*tables, sep="\n\n", end="\n\n", flush=True)
    if args.dry_run:
        return 0
    bar: list[TerminalLog] = []

    def logs(start: int) -> Sequence[TerminalLog]:
        directory = pathlib.Path(config.model_dir)
        (directory / "config.gin").write_text(text)
        _say_start(start, config.loop.total_steps, directory, prepared.initial_checkpoint)
        bar.append(TerminalLog(config.loop.total_steps, start).__enter__())
        return bar

    try:
        outcome = execute(prepared, logs)
    except NotFiniteError as error:
        print(f"rt2 train: error: {config.model_dir}: {error}", file=sys.stderr)
        return NOT_FINITE
    finally:
        for each in bar:
            each.__exit__(None, None, None)
    step = int(outcome.state.step)
    if first:
        print(
            f"{'stopped' if outcome.stopped else 'done'} at step {step}: "
            f"{pathlib.Path(config.model_dir) / f'checkpoint_{step}'}"
        )
    return STOPPED if outcome.stopped else 0


def _say_start(
    step: int, total: int, directory: pathlib.Path, initial: pathlib.Path | None
) -> None:
    if step >= total:
        print(f"{directory} is at step {step} of {total}: nothing to do", flush=True)
    elif step:
        print(f"going on from {directory / f'checkpoint_{step}'} to step {total}", flush=True)
    else:
        print(f"from {initial or 'new parameters'} to step {total} in {directory}", flush=True)


def _as_binding(argument: str) -> str:
    """`--gin.NAME=VALUE` -> `--gin-binding=NAME=VALUE`, with plain text in quotes."""
    if not argument.startswith("--gin."):
        return argument
    name, equals, value = argument.removeprefix("--gin.").partition("=")
    try:
        ast.literal_eval(value)
    except (SyntaxError, ValueError):
        if not value.startswith(("@", "%", "[", "(", "{")):
            value = repr(value)
    return f"--gin-binding={name}{equals}{value}"
