"""One request and what became of it, while it becomes so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from time import time as since_1970
from typing import Any

from rt2_jax.serving.batching import Answer
from rt2_jax.serving.requests import Request
from rt2_jax.serving.tasks import ServedTask

_KEPT = 1000  # characters of what nobody has checked


def _small(value: Any) -> Any:
    if isinstance(value, (str, bytes)):
        return value[:_KEPT]
    return value if isinstance(value, (bool, int, float, type(None))) else type(value).__name__


@dataclass
class Exchange:
    """What the server knows of a request.

    Attributes:
      connection: its name.
      time: of arrival, seconds since 1970.
      clock: of arrival, seconds of a clock that never jumps.
      session: what the request names, else the connection.
      seq: the client's number, of any type.
      instruction: as sent, of any type; also of requests that are refused.
      task: that it asks for, once that is known.
      request: once it is read.
      answer: of the policy.
      warnings: that go with the answer.
      reply: the answer as its wire sends it.
      outcome: one of `rt2_jax.data.request_log.OUTCOMES` once it is over.
      error: what was said instead of an answer.
      total_s: from arrival to the outcome.
      retry_s: after which a request may be sent again that found the server `busy`.
    """

    connection: str
    time: float = field(default_factory=since_1970)
    clock: float = field(default_factory=perf_counter)
    session: str = ""
    seq: Any = None
    instruction: Any = ""
    task: ServedTask | None = None
    request: Request | None = None
    answer: Answer | None = None
    warnings: tuple[str, ...] = ()
    reply: bytes | str = b""
    outcome: str = ""
    error: str = ""
    total_s: float = 0.0
    retry_s: float = 0.0

    def note(self, frame: Any) -> None:
        """Notes what a frame says of itself, before it is known to be a request."""
        self.session = self.connection
        if isinstance(frame, Mapping):
            session = frame.get("session")
            if isinstance(session, (str, int)) and session:
                self.session = str(session)[:_KEPT]
            self.seq = _small(frame.get("seq"))
            self.instruction = _small(frame.get("prompt", frame.get("instruction", "")))

    def end(self, outcome: str, error: str = "") -> Exchange:
        """Notes the outcome; returns itself."""
        self.outcome, self.error = outcome, error
        self.session = self.session or self.connection
        self.total_s = perf_counter() - self.clock
        return self
