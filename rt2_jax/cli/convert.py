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
        "INITIAL_CHECKPOINT_PATH take it. Adapters of a run with LoRA are merged into their base.",
    )
    parser.add_argument("checkpoint", help="checkpoint_<step>, a run's directory, pretrained:NAME")
    parser.add_argument("out", type=pathlib.Path, help="folder; made if need be")
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


def run(args: argparse.Namespace) -> int | None:
    """Writes and says where."""
    from rt2_jax.training.checkpoints import find_checkpoint
    from rt2_jax.training.export import export_adapters, export_params

    source, which = find_checkpoint(args.checkpoint), "ema" if args.ema else "params"
    if args.adapters:
        for flag, value in (("--dtype", args.dtype), ("--base", args.base)):
            if value is not None:
                raise ValueError(f"{flag}: found {value!r} with --adapters; leave one of them out")
        path = export_adapters(source, args.out, which)
    else:
        path = export_params(source, args.out, args.dtype, which, args.base)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{path}: {size / 1e6:.1f} MB")
    return 0
