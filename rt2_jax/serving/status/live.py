"""The newest sessions, as far as the status page shows them."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from rt2_jax.serving.batching import Answer
from rt2_jax.serving.exchange import Exchange
from rt2_jax.serving.status.answer_json import answer_json, short_list, short_text
from rt2_jax.serving.status.traffic import Traffic

_NAME = 120  # characters
_STATE = 64  # numbers
_REMEMBERED = 60  # latencies of a session
# Wires without a session name each such request for itself; they share one card.
_NAMELESS = re.compile(r"(?:.*/)?http(?=-\d+$)")


@dataclass
class LiveSession:
    """What is known of a session; frames and actions are references to what was sent.

    Attributes:
      id: a number that no other session of this server has had.
      name: as the client gave it, else the connection's.
      connection: of its last request.
      left: that connection has ended.
      began, seen: when its first and its last request were over, by `time.perf_counter`.
      task, instruction, outcome, error, warnings, step: of the last request.
      answer: the last one, perhaps to an earlier request; `answered` says when.
      frames: view -> uint8 [H, W, 3], of the last request that could be read.
      number: counts the frames.
      state: float32 [S], with the frames; None without one.
      counts: requests by outcome, and the episodes, `reset`.
      recent: (end, total seconds) of the last answers.
    """

    id: int
    name: str
    connection: str = ""
    left: bool = False
    began: float = 0.0
    seen: float = 0.0
    task: str = ""
    instruction: str = ""
    outcome: str = ""
    error: str = ""
    warnings: tuple[str, ...] = ()
    step: Any = None
    answer: Answer | None = None
    answered: float = 0.0
    frames: Mapping[str, np.ndarray] = field(default_factory=dict)
    number: int = 0
    state: np.ndarray | None = None
    counts: Counter[str] = field(default_factory=Counter)
    recent: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    @property
    def frame_bytes(self) -> int:
        """Of the frames."""
        return sum(image.nbytes for image in self.frames.values())

    def to_json(self, now: float) -> dict[str, Any]:
        """What the page shows; `docs/status_page.md` says what is in it."""
        recent = list(self.recent)
        span = recent[-1][0] - recent[0][0] if len(recent) > 1 else 0.0
        data: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "connection": short_text(self.connection, _NAME),
            "left": self.left,
            "began_s": round(now - self.began, 3),
            "age_s": round(now - self.seen, 3),
            "task": self.task,
            "instruction": self.instruction,
            "outcome": self.outcome,
            "error": short_text(self.error),
            "warnings": short_list(self.warnings),
            "step": self.step if isinstance(self.step, (int, float)) else None,
            "counts": dict(self.counts),
            "per_second": round((len(recent) - 1) / span, 2) if span else None,
            "recent_ms": [round(1000 * total, 2) for _, total in recent],
            "frame": self.number,
            "views": {view: list(image.shape[:2]) for view, image in self.frames.items()},
        }
        if self.state is not None:
            data["state"] = [float(f"{value:.6g}") for value in self.state[:_STATE].tolist()]
        if self.answer is not None:
            data["answer"] = answer_json(self.answer)
            data["answer"]["age_s"] = round(now - self.answered, 3)
        return data


class LiveSessions:
    """Sees every exchange, on the event loop, and keeps little of it.

    Nothing is copied or encoded here: the page's own requests do that, on other threads.

    Args:
      most: sessions; the one that was silent for longest makes room.
      frame_bytes: that the frames of all sessions may hold; the frames of those that were silent
        for longest make room.

    Attributes:
      traffic: the last requests of all sessions.
      counts: requests by outcome since the start.
    """

    def __init__(self, most: int = 64, frame_bytes: int = 64 << 20) -> None:
        self._most = most
        self._frame_bytes = frame_bytes
        self._held_bytes = 0
        self._made = 0
        self._sessions: OrderedDict[str, LiveSession] = OrderedDict()
        self.traffic = Traffic()
        self.counts: Counter[str] = Counter()

    def note(self, exchange: Exchange) -> None:
        """Takes what became of a request, or the event that a session was reset or left."""
        outcome, now = exchange.outcome, exchange.clock + exchange.total_s
        if outcome == "left":
            for each in self._sessions.values():
                each.left = each.left or each.connection == exchange.connection
            return
        session = self._session(exchange, now)
        session.counts[outcome] += 1
        session.seen, session.left = now, False
        session.connection = exchange.connection
        if outcome == "reset":
            return
        self.counts[outcome] += 1
        session.outcome, session.error = outcome, exchange.error
        session.warnings = exchange.warnings
        session.instruction = short_text(exchange.instruction)
        if exchange.task is not None:
            session.task = str(exchange.task.schema.metadata.get("task", ""))
        if exchange.request is not None:
            observation = exchange.request.observation
            session.step, session.state = observation.step, observation.state
            self._take_frames(session, observation.images)
        answer = exchange.answer
        if answer is None:
            self.traffic.add(now, outcome)
            return
        session.answer, session.answered = answer, now
        session.recent.append((now, exchange.total_s))
        self.traffic.add(
            now, outcome, answer.queue_s, answer.infer_s, exchange.total_s, answer.batch_size
        )

    def sessions(self) -> list[LiveSession]:
        """The sessions, the one that was seen last first."""
        return list(reversed(self._sessions.values()))

    def find(self, identity: int) -> LiveSession | None:
        """The session with this `id`, if it is still kept."""
        return next((each for each in self._sessions.values() if each.id == identity), None)

    def now(self) -> float:
        """The clock of `seen` and `answered`."""
        return perf_counter()

    def _session(self, exchange: Exchange, now: float) -> LiveSession:
        nameless = _NAMELESS.match(exchange.session)
        name = nameless[0] if nameless else short_text(exchange.session, _NAME)
        session = self._sessions.get(name)
        if session is None:
            self._made += 1
            session = self._sessions[name] = LiveSession(self._made, name, began=now)
            if len(self._sessions) > self._most:
                _, oldest = self._sessions.popitem(last=False)
                self._held_bytes -= oldest.frame_bytes
        self._sessions.move_to_end(name)
        return session

    def _take_frames(self, session: LiveSession, frames: Mapping[str, np.ndarray]) -> None:
        self._held_bytes -= session.frame_bytes
        session.frames, session.number = frames, session.number + 1
        self._held_bytes += session.frame_bytes
        if self._held_bytes <= self._frame_bytes:
            return
        for each in self._sessions.values():
            if self._held_bytes <= self._frame_bytes or each is session:
                return
            self._held_bytes -= each.frame_bytes
            each.frames = {}
