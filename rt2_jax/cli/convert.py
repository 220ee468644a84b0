"""`rt2 convert`: a run's checkpoint as one that serving reads, parameters and description alone."""

from __future__ import annotations

import argparse
import pathlib

from rt2_jax.cli.gin_flags import add_gin_flags, config_of


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `rt2 convert`."""
    parser = subparsers.add_parser(
        "convert",
        description="Writes OUT/checkpoint_<step> with the parameters and the description of a "
        "checkpoint, without the optimizer's state. Serving, evaluation and the next run's "
        "INITIAL_CHECKPOINT_PATH take it. Adapters of a run with LoRA are merged into their base.",
    )
    parser.add_argument(
        "checkpoint", nargs="?", help="checkpoint_<step>, a run's directory, pretrained:NAME"
    )
    parser.add_argument("out", nargs="?", help="folder; made if need be")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of the parameters (default: as they are)"
    )
    parser.add_argument(
        "--ema", action="store_true", help="the average of the parameters (item `ema`)"
    )
    parser.add_argument("--base", help="where the base of adapters is now (default: where it was)")
    parser.add_argument(
        "--adapters", action="store_true", help="the adapters of a run with LoRA alone, not merged"
    )
    add_gin_flags(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="says what would be written; writes nothing"
    )


def run(args: argparse.Namespace) -> int | None:
    """Writes and says where."""
    from rt2_jax.convert.export_config import ExportConfig
    from rt2_jax.training.checkpoints import find_checkpoint
    from rt2_jax.training.export import export_adapters, export_params

    made = config_of(args, ExportConfig, {"checkpoint": "CHECKPOINT", "out": "OUT"})
    config, text = made or (ExportConfig(args.checkpoint, args.out, args.dtype), "")
    checkpoint, directory = find_checkpoint(config.checkpoint), pathlib.Path(config.output_dir)
    which = "ema" if args.ema else "params"
    if args.adapters:
        for flag, value in (("--dtype", config.dtype), ("--base", args.base)):
            if value is not None:
                raise ValueError(f"{flag}: found {value!r} with --adapters; leave one of them out")
    if args.dry_run:
        print(f"{text}{checkpoint} -> {directory / checkpoint.name}")
        return 0
    if args.adapters:
        path = export_adapters(checkpoint, directory, which)
    else:
        path = export_params(checkpoint, directory, config.dtype, which, args.base)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{path}: {size / 1e6:.1f} MB")
    return 0
