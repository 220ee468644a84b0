"""`rt2 eval infer`, and `rt2 eval offline` of gin files."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence

from rt2_jax.cli.gin_flags import add_gin_flags, config_of


def add_job_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the gin flags and `--dry-run`, behind the verb's own."""
    add_gin_flags(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="prints the configuration, the checkpoint and the steps; answers and writes nothing",
    )


def add_infer(verbs: argparse._SubParsersAction) -> None:
    """Adds `rt2 eval infer`."""
    parser = verbs.add_parser(
        "infer",
        help="writes the answers to cached steps, or the scores of recorded ones, as JSON lines",
        description="Writes OUT/TASK-MODE.jsonl-00000-of-00001 for each task, a line for each "
        "cached step: what was asked, what was recorded, and the answer (--mode predict) or the "
        "log-probability of what was recorded (--mode score). The answers are those that `rt2 eval "
        "offline` compares.",
    )
    parser.add_argument(
        "checkpoint", nargs="?", help="a checkpoint, or a run's folder for its latest"
    )
    parser.add_argument("--out", help="folder; made if need be")
    parser.add_argument("--mode", default="predict", help="predict or score (default: %(default)s)")
    parser.add_argument("--cache-dir", default="cache", help="default: %(default)s")
    parser.add_argument(
        "--task", action="append", default=[], help="default: all of the mixture; may be repeated"
    )
    parser.add_argument("--split", default="validation", help="default: %(default)s")
    parser.add_argument("--limit", type=int, help="steps of each task, evenly spread")
    parser.add_argument(
        "--batch-size", type=int, default=32, help="examples at once (default: %(default)s)"
    )
    add_ema(parser)
    parser.add_argument("--shard-id", type=int, default=0, help="of several processes, which one")
    parser.add_argument("--num-shards", type=int, default=1, help="how many share the steps")
    add_job_flags(parser)
    parser.set_defaults(do=_infer)


def add_ema(parser: argparse._ActionsContainer) -> None:
    """Adds the flag that chooses the average of the parameters."""
    parser.add_argument(
        "--ema", action="store_true", help="the average of the parameters answers (item `ema`)"
    )


def which_params(ema: bool) -> str:
    """As `PolicyEngine.from_checkpoint` names them."""
    return "ema" if ema else "params"


def with_gin(args: argparse.Namespace) -> argparse.Namespace | None:
    """The flags of `rt2 eval offline` as gin files give them; None where it was a dry run."""
    from rt2_jax.evaluation.job_configs import EvalConfig

    made = config_of(args, EvalConfig, {"checkpoint": "CHECKPOINT"})
    if made is not None:
        from rt2_jax.training.checkpoints import find_checkpoint

        config, text = made
        name = find_checkpoint(config.checkpoint).name
        directory = pathlib.Path(config.output_dir)
        args = argparse.Namespace(
            checkpoint=config.checkpoint,
            cache_dir=config.cache_dir,
            task=config.tasks,
            split=config.split,
            limit=config.limit,
            batch_size=config.batch_size,
            ema=config.ema,
            json=str(directory / f"{name}.{config.split}.json"),
            dry_run=args.dry_run,
        )
        if args.dry_run:
            print(text.strip(), end="\n\n")
        else:
            directory.mkdir(parents=True, exist_ok=True)
    if not args.dry_run:
        return args
    _show(args.checkpoint, args.cache_dir, args.task, args.split, args.limit)
    return None


def _infer(args: argparse.Namespace) -> None:
    from rt2_jax.cli.eval import progress
    from rt2_jax.evaluation.infer import infer
    from rt2_jax.evaluation.job_configs import InferConfig
    from rt2_jax.inference.engine import PolicyEngine

    made = config_of(args, InferConfig, {"checkpoint": "CHECKPOINT", "out": "--out"})
    if made is None:
        config = InferConfig(
            args.checkpoint,
            args.out,
            args.mode,
            tuple(args.task),
            args.cache_dir,
            args.split,
            args.limit,
            args.batch_size,
            args.shard_id,
            args.num_shards,
            args.ema,
        )
    else:
        config, text = made
        if args.dry_run:
            print(text.strip(), end="\n\n")
    if args.dry_run:
        _show(config.checkpoint, config.cache_dir, config.tasks, config.split, config.limit)
        return
    engine = PolicyEngine.from_checkpoint(
        config.checkpoint, (config.batch_size,), which_params(config.ema)
    )
    with progress() as report:
        files = infer(
            engine,
            config.cache_dir,
            config.output_dir,
            config.tasks,
            split=config.split,
            mode=config.mode,
            limit=config.limit,
            shard_id=config.shard_id,
            num_shards=config.num_shards,
            report=report,
        )
    print(*files, sep="\n")


def _show(
    checkpoint: str, cache_dir: str, tasks: Sequence[str], split: str, limit: int | None
) -> None:
    """What would be answered; no weights are read."""
    from rt2_jax.evaluation.cached_tasks import open_cached_tasks
    from rt2_jax.evaluation.offline import spread
    from rt2_jax.training.checkpoints import find_checkpoint
    from rt2_jax.training.description import RunDescription

    path = find_checkpoint(checkpoint)
    description = RunDescription.from_checkpoint(path)
    print(f"{path}: {type(description.model).__name__}, mixture {description.manifest.mixture!r}")
    for entry, cache in open_cached_tasks(description, cache_dir, tasks, split):
        count = len(spread(len(cache), limit))
        print(f"{entry.info.name}, split {split!r}: {count} of {len(cache)} steps")
