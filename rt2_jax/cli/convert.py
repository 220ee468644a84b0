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
        "INITIAL_CHECKPOINT_PATH take it.",
    )
    parser.add_argument(
        "checkpoint", nargs="?", help="checkpoint_<step>, a run's directory, pretrained:NAME"
    )
    parser.add_argument("out", nargs="?", help="folder; made if need be")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of the parameters (default: as they are)"
    )
    add_gin_flags(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="says what would be written; writes nothing"
    )


def run(args: argparse.Namespace) -> int | None:
    """Writes and says where."""
    from rt2_jax.convert.export_config import ExportConfig
    from rt2_jax.training.checkpoints import export_params, find_checkpoint

    made = config_of(args, ExportConfig, {"checkpoint": "CHECKPOINT", "out": "OUT"})
    config, text = made or (ExportConfig(args.checkpoint, args.out, args.dtype), "")
    checkpoint, directory = find_checkpoint(config.checkpoint), pathlib.Path(config.output_dir)
    if args.dry_run:
        print(f"{text}{checkpoint} -> {directory / checkpoint.name}")
        return 0
    path = export_params(checkpoint, directory, config.dtype)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{path}: {size / 1e6:.1f} MB")
    return 0
