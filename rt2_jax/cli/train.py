"""`rt2 train`: trains what gin files describe, from where it was stopped."""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rt2_jax.cli.gin_flags import add_gin_flags
from rt2_jax.cli.host_flags import add_host_flags, hosts_of
from rt2_jax.training import exits

if TYPE_CHECKING:
    from rt2_jax.training.hosts import Hosts
    from rt2_jax.training.run_config import RunConfig


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `rt2 train`."""
    parser = subparsers.add_parser(
        "train",
        description=__doc__,
        epilog="--gin.NAME=VALUE sets a macro, --gin.CLASS.parameter=VALUE a parameter; a value "
        "that is no gin literal is text. Exit status 0: done; 2: bad input; 3: the loss stayed not "
        "finite; 75: a host or a worker was lost, or no step ended for too long, start all again; "
        "143: stopped by SIGTERM or a notice of preemption, saved; 1: a mistake in the program.",
    )
    add_gin_flags(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="prints configuration, parameters, bytes and mixture; trains and writes nothing. Of a "
        "gin file of a model alone (models/...) it prints the parameters of its parts. What the "
        "run has not yet, such as a mixture's cache, it names with the commands that make it, and "
        "the exit status is 2",
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="--dry-run exits with 0 also where data or the initial checkpoint are missing",
    )
    parser.add_argument(
        "--devices",
        type=int,
        metavar="N",
        help="--dry-run lays the state out on N devices instead of those that are here",
    )
    parser.add_argument(
        "--report",
        nargs="?",
        const="",
        metavar="MODEL_DIR",
        help="trains nothing: writes a page of the run's curves, MODEL_DIR/report.html; without a "
        "folder, of the run that the gin files describe",
    )
    parser.add_argument(
        "--profile-steps",
        type=_steps,
        metavar="A:B",
        help="a trace of the steps from when A were taken until B were, in MODEL_DIR/profile",
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
    add_host_flags(parser, detect=True)


def run(args: argparse.Namespace) -> int | None:
    """Prepares the run, prints what it is, trains; returns the exit status."""
    if args.report is None and not args.gin_file:
        raise ValueError("there is nothing to train: say what with --gin_file")
    if args.report is not None:
        return _report(args)
    hosts = hosts_of(args)
    if args.dry_run or not hosts.may_be_many:
        return _train(args, None)
    from rt2_jax.cli.main import answered
    from rt2_jax.training.guard import guarded

    return guarded(lambda: answered("train", lambda: _train(args, hosts)), "rt2 train")


def _train(args: argparse.Namespace, hosts: Hosts | None) -> int:
    import jax

    from rt2_jax.training.distributed import leave_together, lost_peer, start

    if args.replay_exactly and args.replay is None:
        raise ValueError("--replay-exactly goes with --replay STEP")
    if args.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", args.compilation_cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if args.devices is not None:
        if not args.dry_run or args.devices < 1:
            raise ValueError(f"--devices {args.devices}: expected 1 or more, and --dry-run")
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", args.devices)
    try:
        if hosts is not None and (found := start(hosts)) is not None:
            print(f"rt2 train: {found}", file=sys.stderr, flush=True)
        status = _prepare_and_execute(args)
    except Exception as error:
        retryable = lost_peer(error) or error
        if not isinstance(retryable, (exits.RetryableError, ChildProcessError)):
            raise
        print(
            f"rt2 train: error: {retryable}; what was saved is whole, start all processes again",
            file=sys.stderr,
        )
        return exits.RETRYABLE
    if hosts is not None:
        leave_together()
    return status


def _prepare_and_execute(args: argparse.Namespace) -> int:
    import jax

    from rt2_jax.models.parts import model_parts
    from rt2_jax.training import report
    from rt2_jax.training.execution import execute
    from rt2_jax.training.gin_files import load_model_config, load_run_config
    from rt2_jax.training.goodput import goodput_table, process_start, read_ledger
    from rt2_jax.training.logs import TerminalLog
    from rt2_jax.training.loop import NotFiniteError
    from rt2_jax.training.lora import base_of
    from rt2_jax.training.run import prepare

    if args.module:
        from rt2_jax.data.task_modules import import_tasks  # imports TensorFlow

        for module in args.module:
            import_tasks(module)
    files = (args.gin_file, args.gin_bindings, args.gin_search_paths)
    if args.dry_run and (model := load_model_config(*files)) is not None:
        start = time.perf_counter()
        print(report.parts_table(report.abstract_parts(model)))
        print(f"\nshapes computed in {time.perf_counter() - start:.1f} s, without memory")
        return 0
    config, text = load_run_config(*files)
    try:
        prepared = prepare(config)
    except FileNotFoundError:
        if not args.dry_run:
            raise
        return _dry_run_without(config, text, args.allow_missing)
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
        outcome = execute(prepared, logs, begin=process_start(), profile_steps=args.profile_steps)
    except NotFiniteError as error:
        print(f"rt2 train: error: {config.model_dir}: {error}", file=sys.stderr)
        return exits.NOT_FINITE
    finally:
        for each in bar:
            each.__exit__(None, None, None)
    step = int(outcome.state.step)
    if first:
        print(goodput_table(read_ledger(pathlib.Path(config.model_dir) / "goodput.jsonl")))
        print(
            f"{'stopped' if outcome.stopped else 'done'} at step {step}: "
            f"{pathlib.Path(config.model_dir) / f'checkpoint_{step}'}"
        )
    return exits.PREEMPTED if outcome.stopped else exits.DONE


def _dry_run_without(config: RunConfig, text: str, allow_missing: bool) -> int:
    """Prints all of a dry run but what the data say, then what is missing."""
    from rt2_jax.models.parts import model_parts
    from rt2_jax.training import report
    from rt2_jax.training.outlook import look_ahead

    outlook = look_ahead(config)
    parts = report.parts_table(model_parts(config.model, outlook.initializer.abstract.params))
    tables = [text.strip(), report.parameter_table(outlook), parts]
    print(
        *tables, report.batch_table(outlook), report.memory_table(outlook), sep="\n\n", flush=True
    )
    for each in outlook.missing:
        print(f"rt2 train: {'' if allow_missing else 'error: '}missing: {each}", file=sys.stderr)
    return exits.DONE if allow_missing else exits.BAD_INPUT


def _report(args: argparse.Namespace) -> int:
    from rt2_jax.training.run_page import write_run_page

    directory, files = args.report, list(args.gin_file or ())
    if directory.endswith(".gin"):
        directory, files = "", [directory, *files]
    if not directory:
        if not files:
            raise ValueError("--report: say of which run: its folder, or a gin file")
        from rt2_jax.training.gin_files import load_run_config

        config, _ = load_run_config(files, args.gin_bindings, args.gin_search_paths)
        directory = config.model_dir
    print(write_run_page(pathlib.Path(directory)))
    return 0


def _steps(text: str) -> tuple[int, int]:
    first, colon, end = text.partition(":")
    if not (colon and first.isdigit() and end.isdigit() and int(first) < int(end)):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected A:B with A below B, as 20:25")
    return int(first), int(end)


def _say_start(
    step: int, total: int, directory: pathlib.Path, initial: pathlib.Path | None
) -> None:
    if step >= total:
        print(f"{directory} is at step {step} of {total}: nothing to do", flush=True)
    elif step:
        print(f"going on from {directory / f'checkpoint_{step}'} to step {total}", flush=True)
    else:
        print(f"from {initial or 'new parameters'} to step {total} in {directory}", flush=True)
