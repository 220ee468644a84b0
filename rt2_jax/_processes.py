"""Processes that do what comes through a connection; none of them outlives its parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection


@contextlib.contextmanager
def serving_processes(
    count: int, serve: Callable[..., None], *arguments: object
) -> Iterator[list[Connection]]:
    """Connections to new processes, which end with the block.

    Args:
      count: how many.
      serve: of a module; each process calls it with its connection and the arguments.
      arguments: that can be pickled.
    """
    context = multiprocessing.get_context("spawn")  # TensorFlow, jax, renderers start threads
    processes, connections = [], []
    resource_tracker.ensure_running()  # its start, which the first process's would be, unblocks
    # Ctrl-C reaches all processes of a terminal; these inherit that it's for the parent.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        try:
            for _ in range(count):
                ours, theirs = context.Pipe()
                process = context.Process(target=serve, args=(theirs, *arguments), daemon=True)
                process.start()
                theirs.close()
                processes.append(process)
                connections.append(ours)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield list(connections)
    finally:
        for connection in connections:
            connection.close()
        for process in processes:
            process.terminate()  # it may be waiting for something else
        for process in processes:
            process.join()


def end_with_parent() -> None:
    """Lets this process end when its parent does: a killed parent cannot see to it."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def portable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return error
