"""`rt2 serve`: a checkpoint as a server that robots ask for actions."""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any


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
        "--token-file",
        type=pathlib.Path,
        help="clients must show one of its tokens: `name token [requests per second]` a line, or a "
        "token and nothing else; it is read again when it changes, and on SIGHUP",
    )
    parser.add_argument("--tls-cert", type=pathlib.Path, help="PEM: clients connect to wss://")
    parser.add_argument("--tls-key", type=pathlib.Path, help="PEM, without a passphrase")
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="of size or time, such as pixels=8000000 or request_s=60; docs/security.md names them",
    )
    parser.add_argument(
        "--debug-errors",
        action="store_true",
        help="clients are told the traceback of a policy that failed, and paths of this machine",
    )
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
    from rt2_jax.serving.keys import Keys
    from rt2_jax.serving.limits import Limits
    from rt2_jax.serving.options import ServerOptions
    from rt2_jax.serving.server import check_address, is_own, serve
    from rt2_jax.serving.tls import Certificate

    keys = None if args.token_file is None else Keys.read(args.token_file)
    check_address(args.host, keys, args.insecure)
    if args.tls_key is not None and args.tls_cert is None:
        raise ValueError("--tls-key is given, but no --tls-cert")
    if args.tls_cert is not None:
        Certificate(args.tls_cert, args.tls_key)
    elif not is_own(args.host):
        print("no --tls-cert: tokens and pictures can be read on their way", file=sys.stderr)
    changes = _limits(args.limit)
    sizes = _sizes(args.batch_sizes)
    engine = PolicyEngine.from_checkpoint(args.checkpoint, sizes, "ema" if args.ema else "params")
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

    options = ServerOptions(
        max(sizes),
        log=log,
        keys=keys,
        limits=Limits.of_policy(policy.metadata, **changes),
        tls_cert=args.tls_cert,
        tls_key=args.tls_key,
        debug_errors=args.debug_errors,
    )
    serve(policy, args.host, args.port, options, ready)
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


def _limits(words: list[str]) -> dict[str, Any]:
    import dataclasses

    from rt2_jax.serving.limits import Limits

    defaults = dataclasses.asdict(Limits())
    changes: dict[str, Any] = {}
    for word in words:
        name, _, number = word.partition("=")
        try:
            changes[name] = type(defaults[name])(number)
        except (KeyError, ValueError):
            raise ValueError(
                f"--limit: found {word!r}, expected NAME=NUMBER with a name of "
                f"{', '.join(defaults)}"
            ) from None
    Limits(**changes)
    return changes
