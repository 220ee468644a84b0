"""A process that watches over the one that trains, since XLA ends it by SIGABRT for a lost peer.

JAX's distributed runtime aborts a process whose coordinator or peer is gone; its callback for
this cannot be given from Python (jaxlib 0.10.2: `std::bad_cast`). Nothing in that process can
then choose its exit status, so another one does. It imports nothing heavy.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable

from rt2_jax.training.exits import FAILED, RETRYABLE

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_guarded = False


def is_guarded() -> bool:
    """Whether this is a process of several that train as one, under `guarded`."""
    return _guarded


def guarded(program: Callable[[], int], name: str) -> int:
    """Runs the program in a process of its own; its exit status, and RETRYABLE if it was aborted.

    SIGTERM, SIGINT and SIGUSR1, which asks for a trace, are passed on; the program dies when this
    process is killed. The program's process ends at once, without waiting for others: it must have
    left them in good order.

    Args:
      program: gives an exit status.
      name: that the line on an abort begins with.
    """
    global _guarded
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _guarded = True
        status = FAILED
        try:
            _die_with(parent)
            status = program()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda received, _: os.kill(child, received))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == -signal.SIGABRT:
        print(
            f"{name}: error: the distributed runtime ended this process: another process of the "
            "run has ended or cannot be reached; what was saved is whole, start all of them again",
            file=sys.stderr,
        )
        return RETRYABLE
    return status if status >= 0 else 128 - status


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # It was killed in between.
        os._exit(FAILED)
