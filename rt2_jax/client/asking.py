"""One call at a time on a thread of its own, so that a control loop never waits for the network."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Optional


class Asker:
    """Makes calls on a thread, one at a time; the thread dies with the program.

    Attributes:
      busy: whether a call was begun whose outcome was not taken yet.
    """

    def __init__(self) -> None:
        self.busy = False
        self._done = threading.Event()
        self._thread: Optional[threading.Thread] = None
        self._result: Any = None
        self._error: Optional[BaseException] = None
        self._took_s = 0.0

    def begin(self, call: Callable[[], Any]) -> None:
        """Begins a call; the earlier one must have been taken."""
        assert not self.busy
        self.busy = True
        self._done.clear()
        self._thread = threading.Thread(target=self._run, args=(call,), name="policy", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Whether the outcome is there, after at most so long."""
        return self._done.wait(max(0.0, seconds))

    @property
    def ready(self) -> bool:
        """Whether there is an outcome to take."""
        return self.busy and self._done.is_set()

    def take(self) -> Any:
        """The call's result. Raises what it raised."""
        self.busy = False
        if self._error is not None:
            raise self._error
        return self._result

    @property
    def took_s(self) -> float:
        """Seconds that the last call took."""
        return self._took_s

    def join(self) -> None:
        """Waits until no call runs; its outcome is for nobody."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, call: Callable[[], Any]) -> None:
        begin = time.monotonic()
        self._result, self._error = None, None
        try:
            self._result = call()
        except BaseException as error:
            self._error = error
        self._took_s = time.monotonic() - begin
        self._done.set()
