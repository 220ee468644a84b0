"""`rt2 convert`: a run's checkpoint as one that serving reads, parameters and description alone."""

from __future__ import annotations

import argparse
import pathlib


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `rt2 convert`."""
    parser = subparsers.add_parser(
        "convert",
        description="Writes OUT/checkpoint_<step> with the parameters and the description of a "
        "checkpoint, without the optimizer's state. Serving, evaluation and the next run's "
        "INITIAL_CHECKPOINT_PATH take it.",
    )
    parser.add_argument("checkpoint", help="checkpoint_<step>, a run's directory, pretrained:NAME")
    parser.add_argument("out", type=pathlib.Path, help="folder; made if need be")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of the parameters (default: as they are)"
    )


def run(args: argparse.Namespace) -> int | None:
    """Writes and says where."""
    from rt2_jax.training.checkpoints import export_params, find_checkpoint

    path = export_params(find_checkpoint(args.checkpoint), args.out, args.dtype)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{path}: {size / 1e6:.1f} MB")
    return 0
