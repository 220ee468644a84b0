"""The thread that the model runs on."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any


class ModelThread:
    """Runs one thing after the other, off the event loop.

    Unlike an executor's, its thread does not keep the process from ending when the model hangs.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def run(self, do: Callable[..., Any], *args: Any) -> asyncio.Future:
        """What `do(*args)` returns or raises, after all that was asked for before."""
        future = self._loop.create_future()
        self._work.put((future, do, args))
        return future

    def stop(self, patience_s: float = 2.0) -> None:
        """Ends after what was asked for, or leaves it alone if that takes longer."""
        self._work.put(None)
        self._thread.join(patience_s)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, do, args = work
            try:
                result, error = do(*args), None
            except Exception as raised:
                result, error = None, raised
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(_settle, future, result, error)
            del work, future, do, args, result, error  # pictures, while it waits for the next


def _settle(future: asyncio.Future, result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
