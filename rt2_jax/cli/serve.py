"""`rt2 serve`: a checkpoint as a server that robots ask for actions."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rt2_jax.cli.host_flags import add_host_flags, hosts_of
from rt2_jax.cli.serve_security import add_security_flags, security_options
from rt2_jax.cli.serve_sharing import add_sharing_flags, sharing_options
from rt2_jax.training.exits import DONE, RETRYABLE

if TYPE_CHECKING:
    from rt2_jax.inference.exported import ProgramStore
    from rt2_jax.inference.placement import Placement
    from rt2_jax.serving.health import Health
    from rt2_jax.serving.request_logger import RequestLogger, TaskLogs
    from rt2_jax.training.hosts import Hosts


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `rt2 serve`."""
    parser = subparsers.add_parser(
        "serve",
        description="Serves a checkpoint over openpi's, vla-eval's and OpenVLA's wires. It is "
        "compiled before the port opens; the checkpoint directory is all that is needed.",
        epilog="Exit status of several hosts: 0: ended by SIGTERM of the first one; 75: a host was "
        "lost, start all of them again; 2: bad input.",
    )
    parser.add_argument("checkpoint", help="checkpoint_<step>, a run's directory, pretrained:NAME")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="default: %(default)s; 0: any free")
    parser.add_argument("--task", help="serves this robot task only (default: all of them)")
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
    parser.add_argument(
        "--questions",
        action="store_true",
        help="also answers questions in words, at POST /v1/generate, and compiles for them",
    )
    parser.add_argument(
        "--camera",
        action="append",
        default=[],
        metavar="NAME=VIEW",
        help="a client's name of a camera that is the policy's view; may be given several times",
    )
    parser.add_argument(
        "--mesh",
        help="several devices, such as tensor=4: each holds a part of the weights (default: one "
        "device holds all)",
    )
    add_host_flags(parser, detect=False)
    parser.add_argument(
        "--cache-dir",
        help="where compiled programs are kept for the next start (default: rt2_jax/programs in "
        "the user's cache folder); whoever may write there can run code in the server",
    )
    parser.add_argument(
        "--no-cache", action="store_true", help="keeps no programs, and compiles all of them"
    )
    parser.add_argument(
        "--health-port",
        type=int,
        help="/healthz and /readyz for probes on a port of their own, from before the model is "
        "loaded on, over plain HTTP and without a token (default: only on the server's port, which "
        "opens when it is ready)",
    )
    add_security_flags(parser)
    parser.add_argument(
        "--log-dir",
        type=pathlib.Path,
        help="requests and answers are logged in a folder of their own there; see `rt2 data "
        "import-log` (default: nothing is logged)",
    )
    parser.add_argument(
        "--no-status", action="store_true", help="no page that shows what robots ask and get"
    )
    add_sharing_flags(parser)


def run(args: argparse.Namespace) -> int | None:
    """Loads, compiles, serves until SIGTERM."""
    secured = security_options(args)
    sizes = _sizes(args.batch_sizes)
    if args.cache_dir is not None and args.no_cache:
        raise ValueError("--cache-dir and --no-cache exclude each other")
    hosts = hosts_of(args)
    if not hosts.may_be_many:
        return _probed(args, sizes, secured)
    if args.mesh is None:
        raise ValueError("several hosts: say how they divide the weights, as --mesh tensor=8")
    from rt2_jax.cli.main import answered
    from rt2_jax.training.guard import guarded

    def program() -> int:
        return _together(hosts, lambda: _probed(args, sizes, secured))

    return guarded(lambda: answered("serve", program), "rt2 serve")


def _together(hosts: Hosts, program: Callable[[], int]) -> int:
    """Does it on all hosts as one; the exit status."""
    from rt2_jax.training.distributed import leave_together, lost_peer, start

    try:
        print(f"rt2 serve: {start(hosts)}", file=sys.stderr, flush=True)
        status = program()
    except Exception as error:
        lost = lost_peer(error)
        if lost is None:
            raise
        print(f"rt2 serve: error: {lost}; start all of them again", file=sys.stderr)
        return RETRYABLE
    if status == DONE:  # else the others shall notice
        leave_together()
    return status


def _probed(args: argparse.Namespace, sizes: tuple[int, ...], secured: Mapping[str, Any]) -> int:
    from rt2_jax.serving.health import Health, health_port

    health = Health()
    with contextlib.ExitStack() as stack:
        if args.health_port is not None:
            port = stack.enter_context(health_port(args.host, args.health_port, health))
            print(f"probes: http://{args.host}:{port}/readyz", file=sys.stderr, flush=True)
        return _serve(args, sizes, secured, health)


def _serve(
    args: argparse.Namespace, sizes: tuple[int, ...], secured: Mapping[str, Any], health: Health
) -> int:
    import jax

    from rt2_jax.actions.identity import content_hash
    from rt2_jax.inference.placement import Placement, read_mesh
    from rt2_jax.inference.starting import start_policies
    from rt2_jax.serving.limits import Limits
    from rt2_jax.serving.lockstep import LeadingPolicy, follow
    from rt2_jax.serving.options import ServerOptions
    from rt2_jax.serving.server import check_port, serve
    from rt2_jax.training.agreement import check_agreement
    from rt2_jax.training.checkpoints import find_checkpoint, read_description
    from rt2_jax.training.goodput import process_start

    sharing, limits = sharing_options(args), secured["limits"]
    # What cannot be had is told before anything is compiled.
    if jax.process_index() == 0:
        check_port(args.host, args.port)
    if args.log_dir is not None:
        args.log_dir.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        health.doing = line
        print(line, file=sys.stderr, flush=True)

    placement = None if args.mesh is None else Placement(read_mesh(args.mesh))
    flags = ("batch_sizes", "mesh", "task", "ema", "int8", "samples")
    checkpoint = find_checkpoint(args.checkpoint)
    check_agreement(
        {
            "checkpoint": f"{checkpoint.name} {content_hash(read_description(checkpoint))}",
            **{f"--{name.replace('_', '-')}": str(getattr(args, name)) for name in flags},
        }
    )
    store = _store(args, placement)
    which = "ema" if args.ema else "params"
    policies, start = start_policies(
        checkpoint,
        sizes,
        which,
        args.task,
        store=store,
        placement=placement,
        weights="int8" if args.int8 else "stored",
        most_samples=args.samples,
        questions=args.questions or None,
        say=say,
    )
    different = {id(policy): (name, policy) for name, policy in policies.items()}.values()
    ((_, first), *others) = different
    if others and jax.process_count() > 1:
        raise ValueError(
            f"found the tasks {sorted(policies)}, and several hosts serve one: give a --task"
        )
    if jax.process_index() > 0:
        say("this host follows the first one, which has the port")
        return follow(first)
    served = LeadingPolicy(first) if jax.process_count() > 1 else policies
    engine = first.engine
    log: RequestLogger | TaskLogs | None = None
    logs: list[RequestLogger] = []
    if args.log_dir is not None:
        from rt2_jax.serving import request_logger  # needs `array_record`

        if others:
            log = request_logger.TaskLogs(args.log_dir, policies)
            logs = [*log.logs.values()]
        else:
            log = request_logger.RequestLogger(args.log_dir, first.metadata)
            logs = [log]

    def ready(url: str) -> None:
        print(f"serving {engine.checkpoint} of {engine.description.manifest.mixture} at {url}")
        for name, policy in different:
            space = engine.action_tokens(policy.task).codec.space
            fields = ", ".join(f"{field.name} [{field.unit}]" for field in space.fields)
            task = f"task {name}: " if len(different) > 1 else ""
            robot = f"{policy.metadata['embodiment']}, {space.control_rate_hz:g} Hz"
            print(f"{task}{robot}: {fields}", flush=True)
        if options.status:
            print(f"status page: {url.replace('ws', 'http', 1)}/", flush=True)
        for each in logs:
            print(f"logging to {each.folder}", flush=True)
        health.doing = ""
        print(start.text(time.time() - process_start()), flush=True)

    seen = (policy.metadata for policy in policies.values())
    options = ServerOptions(
        max(sizes),
        log=log,
        cameras=_cameras(args.camera),
        questions=args.questions,
        status=not args.no_status,
        health=health,
        **{**secured, "limits": Limits.of_policies(seen, **limits)},
        **sharing,
    )
    try:
        serve(served, args.host, args.port, options, ready)
    finally:
        if isinstance(served, LeadingPolicy):
            served.end()
    for each in logs:
        print(f"{each.folder}: {each.written} records written, {each.dropped} dropped", flush=True)
    return 0


def _cameras(words: list[str]) -> dict[str, str]:
    cameras = {}
    for word in words:
        name, equals, view = word.partition("=")
        if not (name and equals and view):
            raise ValueError(
                f"--camera: found {word!r}, expected NAME=VIEW such as agentview=front"
            )
        cameras[name] = view
    return cameras


def _store(args: argparse.Namespace, placement: Placement | None) -> ProgramStore | None:
    import jax

    from rt2_jax.inference.exported import ProgramStore, default_folder

    # Of several processes JAX writes the cache of the first one alone.
    if args.no_cache or jax.process_count() > 1:
        return None
    devices = None if placement is None else placement.devices
    return ProgramStore(args.cache_dir or default_folder(), devices)


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(sorted({int(word) for word in text.split(",")}))
    except ValueError:
        sizes = ()
    if not sizes or sizes[0] < 1:
        raise ValueError(f"--batch-sizes: found {text!r}, expected numbers from 1 such as 1,2,4,8")
    return sizes
