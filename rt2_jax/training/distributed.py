"""Many hosts as one program: started together, ended together, and what a lost one looks like."""

from __future__ import annotations

import contextlib
import os
import re

import jax

from rt2_jax.training.exits import LostPeerError
from rt2_jax.training.guard import is_guarded
from rt2_jax.training.hosts import Hosts, cluster_in

_LOST = re.compile(
    r"gloo|unavailable|deadline.exceeded|coordination service|heartbeat|barrier|"
    r"connection (closed|reset|refused)|socket closed",
    re.IGNORECASE,
)


def start(hosts: Hosts) -> str | None:
    """Joins the other processes, if there are any; before any other use of JAX.

    Returns:
      What was found, in words; None for a process alone.

    Raises:
      LostPeerError: the others did not come in time.
      ValueError: a cluster was found, and JAX cannot read it.
    """
    if not hosts.may_be_many:
        return None
    # A notice of preemption reaches all processes, which then agree on the step to stop at.
    jax.config.update("jax_enable_preemption_service", True)
    found = "flags" if hosts.coordinator_address else cluster_in(os.environ)
    try:
        jax.distributed.initialize(
            hosts.coordinator_address,
            hosts.process_count,
            hosts.process_index,
            initialization_timeout=hosts.start_timeout,
            heartbeat_timeout_seconds=hosts.timeout,
            shutdown_timeout_seconds=hosts.timeout,
        )
    except Exception as error:  # JAX, XLA and gRPC have no error in common.
        reason = " ".join(str(error).split())[:300]
        if _LOST.search(reason):
            raise LostPeerError(f"the other processes were not found ({reason})") from error
        raise ValueError(
            f"--multihost: found a cluster of kind {found!r} that cannot be read ({reason}); give "
            "--coordinator-address, --process-count and --process-index, or --multihost=off"
        ) from error
    return f"process {jax.process_index()} of {jax.process_count()}, by {found}"


def leave_together() -> None:
    """Waits until all processes are here, so that none takes another's end for a loss."""
    with contextlib.suppress(Exception):  # The run has ended as it has; nothing is to be added.
        jax.distributed.shutdown()


def lost_peer(error: BaseException) -> LostPeerError | None:
    """What an error of a collective, or of waiting for others, says of them; None if it does not.

    JAX raises `ValueError` and `JaxRuntimeError` alike where a connection is lost.
    """
    if isinstance(error, LostPeerError):
        return error
    if not is_guarded() or isinstance(error, OSError) or not _LOST.search(str(error)):
        return None
    reason = " ".join(str(error).split())[:200]
    return LostPeerError(f"another process of this run has ended or cannot be reached ({reason})")
