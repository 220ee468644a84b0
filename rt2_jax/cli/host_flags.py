"""The flags of verbs whose processes work as one."""

from __future__ import annotations

import argparse

from rt2_jax.training.hosts import Hosts


def add_host_flags(parser: argparse.ArgumentParser, detect: bool) -> None:
    """Adds how the processes find each other.

    Args:
      parser: of the verb.
      detect: whether a cluster is looked for by default.
    """
    parser.add_argument("--coordinator-address", help="of process 0, HOST:PORT, on many hosts")
    parser.add_argument("--process-count", type=int, help="with --coordinator-address")
    parser.add_argument("--process-index", type=int, help="with --coordinator-address")
    parser.add_argument(
        "--multihost",
        choices=("auto", "off"),
        default="auto" if detect else "off",
        help="auto looks for GKE, TPU VMs, SLURM and Open MPI (default: %(default)s)",
    )
    parser.add_argument(
        "--host-timeout",
        type=int,
        default=100,
        help="seconds without a sign of life after which a process is lost (default: %(default)s)",
    )
    parser.add_argument(
        "--start-timeout",
        type=int,
        default=300,
        help="seconds that processes wait for each other at the start (default: %(default)s)",
    )


def hosts_of(args: argparse.Namespace) -> Hosts:
    """What the flags say.

    Raises:
      ValueError: they do not belong together.
    """
    return Hosts(
        args.coordinator_address,
        args.process_count,
        args.process_index,
        detect=args.multihost == "auto",
        timeout=args.host_timeout,
        start_timeout=args.start_timeout,
    )
