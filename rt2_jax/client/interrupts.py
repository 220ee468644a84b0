"""Ctrl-C and SIGTERM while a robot moves: noted, until the robot stands."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Dict, Optional


class Interrupts:
    """Notes Ctrl-C and SIGTERM instead of acting on them, between `__enter__` and `deliver`.

    A second one is not waited with: it raises where the program is, for a robot's driver that
    hangs. While `last_words` is set nothing is raised. In other threads than the main one, where
    signals do not arrive, it does nothing.

    Attributes:
      received: the first signal's name; empty for none.
      last_words: set while the robot is being stopped.
    """

    def __init__(self) -> None:
        self.received = ""
        self.last_words = False
        self._signal: Optional[int] = None
        self._before: Dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def deliver(self) -> None:
        """Acts on what was noted: raises KeyboardInterrupt, or SystemExit(143) for SIGTERM."""
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        if self._signal is not None:
            raise SystemExit(128 + self._signal)

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        again = self._signal is not None
        if not again:
            self._signal = number
            self.received = signal.Signals(number).name
        if again and not self.last_words:
            self.deliver()
