"""`rt2 serve`: a checkpoint as a server that robots ask for actions."""

from __future__ import annotations

import argparse
import pathlib
import sys


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `rt2 serve`."""
    parser = subparsers.add_parser(
        "serve",
        description="Serves a checkpoint over openpi's websocket wire. It is compiled before the "
        "port opens; the checkpoint directory is all that is needed.",
    )
    parser.add_argument("checkpoint", help="checkpoint_<step>, a run's directory, pretrained:NAME")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s; 0: any free")
    parser.add_argument("--task", help="whose prompt and actions; needed where robots differ")
    parser.add_argument(
        "--batch-sizes",
        default="1,2,4,8",
        help="compiled batches; requests that wait share the next (default: %(default)s)",
    )
    parser.add_argument(
        "--ema", action="store_true", help="serves the average of the parameters (item `ema`)"
    )
    parser.add_argument(
        "--int8", action="store_true", help="weights in 8 bits; see `rt2 bench int8`"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=0,
        metavar="N",
        help="requests may ask for up to N drawn answers; compiling takes twice as long "
        "(default: none)",
    )
    parser.add_argument("--token-file", type=pathlib.Path, help="clients must show its content")
    parser.add_argument(
        "--insecure", action="store_true", help="no token although other machines can connect"
    )
    parser.add_argument(
        "--log-dir",
        type=pathlib.Path,
        help="requests and answers are logged in a folder of their own there; see `rt2 data "
        "import-log` (default: nothing is logged)",
    )


def run(args: argparse.Namespace) -> int | None:
    """Loads, compiles, serves until SIGTERM."""
    from rt2_jax.inference import EnginePolicy, PolicyEngine
    from rt2_jax.serving.options import ServerOptions
    from rt2_jax.serving.server import check_address, serve

    token = None if args.token_file is None else args.token_file.read_text().strip()
    if token == "":
        raise ValueError(f"{args.token_file} is empty; write a token into it")
    check_address(args.host, token, args.insecure)
    sizes = _sizes(args.batch_sizes)
    engine = PolicyEngine.from_checkpoint(
        args.checkpoint,
        sizes,
        "ema" if args.ema else "params",
        weights="int8" if args.int8 else "stored",
        most_samples=args.samples,
    )
    policy = EnginePolicy(engine, engine.robot_task(args.task))
    log = None
    if args.log_dir is not None:
        from rt2_jax.serving.request_logger import RequestLogger  # needs `array_record`

        log = RequestLogger(args.log_dir, policy.metadata)
    print(f"compiling {engine.checkpoint} for batches of {args.batch_sizes}", file=sys.stderr)
    engine.warm_up()

    def ready(url: str) -> None:
        space = engine.action_tokens(policy.task).codec.space
        fields = ", ".join(f"{field.name} [{field.unit}]" for field in space.fields)
        print(f"serving {engine.checkpoint} of {policy.metadata['mixture']} at {url}")
        print(
            f"{policy.metadata['embodiment']}, {space.control_rate_hz:g} Hz: {fields}", flush=True
        )
        if log is not None:
            print(f"logging to {log.folder}", flush=True)

    serve(policy, args.host, args.port, ServerOptions(max(sizes), token, log), ready)
    if log is not None:
        print(f"{log.folder}: {log.written} records written, {log.dropped} dropped", flush=True)
    return 0


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        sizes = ()
    if not sizes or sizes[0] < 1:
        raise ValueError(f"--batch-sizes: found {text!r}, expected numbers from 1 such as 1,2,4,8")
    return sizes
