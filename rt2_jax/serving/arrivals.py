"""When robots will ask next, and whether a batch that could begin should wait for them."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from rt2_jax.serving.step_times import StepTimes

_KEPT, _LEAST = 6, 4  # intervals of a session; the longest and the shortest need not agree
_AGREE = 0.25  # of their middle
_GAIN = 0.1  # of the time that all would take otherwise; less is not worth a guess
_LEAST_S = 0.002  # of a step; timers of the event loop are no finer
_MOST_SESSIONS = 1024


@dataclass
class _Rhythm:
    """Of a robot at a fixed rate, or of one that asks a while after each answer."""

    last: float
    answered: float | None = None
    intervals: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    pauses: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def next(self) -> float | None:
        """When the next request comes; None without a rhythm."""
        best, when = float("inf"), None
        for since, lengths in ((self.last, self.intervals), (self.answered, self.pauses)):
            if since is None or len(lengths) < _LEAST:
                continue
            rising = sorted(lengths)
            middle, spread = rising[len(rising) // 2], rising[-2] - rising[1]
            if spread <= max(_AGREE * middle, _LEAST_S) and spread < best:
                best, when = spread, since + middle
        return when


class Arrivals:
    """The rhythm in which each session asks."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, _Rhythm] = OrderedDict()

    def answered(self, session: str, now: float) -> None:
        """A request of it got its answer."""
        if session in self._sessions:
            self._sessions[session].answered = now

    def note(self, session: str, now: float) -> None:
        """A request came."""
        rhythm = self._sessions.get(session)
        if rhythm is None:
            self._sessions[session] = _Rhythm(now)
            if len(self._sessions) > _MOST_SESSIONS:
                self._sessions.popitem(last=False)
            return
        rhythm.intervals.append(now - rhythm.last)
        if rhythm.answered is not None:
            rhythm.pauses.append(now - rhythm.answered)
        rhythm.last, rhythm.answered = now, None
        self._sessions.move_to_end(session)

    def forget(self, session: str) -> None:
        """The session has ended."""
        self._sessions.pop(session, None)

    def expected(self, now: float, within_s: float, waiting: Container[str]) -> list[float]:
        """Seconds until the next requests, rising, of sessions that are not `waiting` already."""
        found = []
        for session, rhythm in self._sessions.items():
            if session not in waiting and (when := rhythm.next()) is not None:
                if now <= when < now + within_s:
                    found.append(when - now)
        return sorted(found)


def worth_waiting(
    count: int, arrivals: Sequence[float], times: StepTimes, largest: int, slack_s: float
) -> float:
    """How long a batch that could begin should wait for more requests; 0.0 for not at all.

    Requests that are not in it wait until it is done. It waits where that makes the time of all
    of them together, those that wait now and those that are expected, clearly less.

    Args:
      count: requests that wait now.
      arrivals: seconds until those that are expected, rising.
      times: of batches.
      largest: batch.
      slack_s: until the first deadline; the batch is done before it.
    """
    now_s = times.expected(count)
    if now_s < _LEAST_S:
        return 0.0
    best, patience = -_GAIN, 0.0
    for more in range(1, min(len(arrivals), largest - count) + 1):
        last = arrivals[more - 1]
        if last >= now_s or last + times.expected(count + more) > slack_s:
            break
        expected = arrivals[:more]
        at_once = count * now_s + sum(now_s + times.expected(more) - each for each in expected)
        waited = count * last + sum(last - each for each in expected)
        waited += (count + more) * times.expected(count + more)
        change = waited / at_once - 1
        if change < best:
            best, patience = change, last + _GAIN * now_s  # a little late is still in time
    return min(patience, max(0.0, slack_s - now_s))
