"""Who waits for the model, who is next, and who is too many."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rt2_jax.actions.sampling import Sampling
from rt2_jax.serving.requests import Request
from rt2_jax.serving.step_times import StepTimes
from rt2_jax.serving.tasks import ServedTask

_MOST_NAMES = 4096  # clients and sessions that something is remembered of; the oldest go first


@dataclass(eq=False)
class Waiting:
    """A request that waits.

    Attributes:
      request: as it was read.
      task: that it asks for.
      connection: that it came over.
      client: whose turn it takes.
      arrived: when, on `time.perf_counter`.
      future: of its answer.
      alarm: at its deadline.
    """

    request: Request
    task: ServedTask
    connection: str
    client: str
    arrived: float
    future: asyncio.Future
    alarm: asyncio.TimerHandle | None = None

    @property
    def session(self) -> str:
        """Whose frames it belongs to."""
        return str(self.request.observation.session)

    @property
    def kind(self) -> tuple[int, Sampling | None]:
        """What a batch has in common."""
        return id(self.task), self.request.sampling

    @property
    def deadline(self) -> float:
        """On `time.perf_counter`; infinite without a budget."""
        budget = self.request.budget_s
        return float("inf") if budget is None else self.arrived + budget


class WaitingLine:
    """Requests in line: one session's come one after the other, and clients take turns.

    The client that was served longest ago is next; among those that the same batch served, the
    earliest deadline. A client's second session has its turn after all clients' first.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, deque[Waiting]] = {}
        self._count = 0
        self._served: OrderedDict[str, int] = OrderedDict()
        self._batches = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Waiting]:
        return iter([each for line in self._sessions.values() for each in line])

    def __contains__(self, session: object) -> bool:
        return session in self._sessions

    def add(self, each: Waiting) -> None:
        """Behind the others of its session."""
        self._sessions.setdefault(each.session, deque()).append(each)
        self._count += 1

    def remove(self, each: Waiting) -> None:
        """Takes one out, if it is in line."""
        line = self._sessions.get(each.session, deque())
        if each in line:
            line.remove(each)
            self._count -= 1
            if not line:
                del self._sessions[each.session]

    def numbered(self, session: str) -> list[Waiting]:
        """A session's requests with a `seq`, which a newer one takes the place of."""
        return [each for each in self._sessions.get(session, ()) if each.request.seq is not None]

    def too_many(self, client: str) -> Waiting | None:
        """Who gives way in a full line: the last of the client with most, if that is not `client`.

        None where the newcomer's own client has as many as any.
        """
        counts = Counter(each.client for each in self)
        most, count = counts.most_common(1)[0]
        if count <= counts[client] + 1:
            return None
        return max((each for each in self if each.client == most), key=lambda each: each.arrived)

    def next_ones(self) -> list[Waiting]:
        """The first of each session, by turn; all of one task and one way to draw answers."""
        firsts = sorted((line[0] for line in self._sessions.values()), key=lambda x: x.arrived)
        if not firsts:
            return []
        before: Counter[str] = Counter()
        turns = []
        for each in firsts:
            served = self._served.get(each.client, -1)
            turns.append((before[each.client], served, each.deadline, each.arrived, each))
            before[each.client] += 1
        turns.sort(key=lambda turn: turn[:-1])
        kind = turns[0][-1].kind
        return [each for *_, each in turns if each.kind == kind]

    def take(self, batch: Sequence[Waiting]) -> None:
        """They are served now."""
        self._batches += 1
        for each in batch:
            self.remove(each)
            self._served[each.client] = self._batches
            self._served.move_to_end(each.client)
        while len(self._served) > _MOST_NAMES:
            self._served.popitem(last=False)


class SequenceNumbers:
    """The last `seq` of each session; numbers only rise.

    A connection that takes a session over numbers anew: a robot's program that was started again
    begins at 0.
    """

    def __init__(self) -> None:
        self._last: OrderedDict[str, tuple[str, int]] = OrderedDict()

    def check(self, session: str, connection: str, seq: int) -> None:
        """Refuses a number that is not above the last one. Raises ValueError."""
        owner, last = self._last.get(session, ("", -1))
        if owner == connection and seq <= last:
            raise ValueError(
                f"request: seq {seq} of session {session!r} after {last}: numbers must rise, so "
                "that the newest request is known; send 'reset' to begin at 0 again"
            )

    def note(self, session: str, connection: str, seq: int) -> None:
        """Notes a number that was checked."""
        self._last[session] = connection, seq
        self._last.move_to_end(session)
        if len(self._last) > _MOST_NAMES:
            self._last.popitem(last=False)

    def forget(self, session: str) -> None:
        """The session begins anew."""
        self._last.pop(session, None)


def choose_batch(
    deadlines: Sequence[float], times: StepTimes, largest: int, now: float
) -> list[int]:
    """Which of the waiting requests the next batch answers.

    As many as possible are to be answered in time; then all of them, the rest included, as early
    as possible; then together. So five requests are not padded to a batch of eight where four and
    then one are done sooner.

    Args:
      deadlines: of requests in the order of their turns; infinite for none.
      times: of batches.
      largest: batch.
      now: on the clock of the deadlines.

    Returns:
      Their indices; at least one unless all deadlines are too near.
    """
    best: list[int] = []
    best_score: tuple[int, float, int] | None = None
    counts = {min(size, largest, len(deadlines)) for size in times.sizes}
    for count in sorted(counts, reverse=True):
        end = now + times.expected(count)
        taken = [i for i, each in enumerate(deadlines) if each >= end][:count]
        in_time = len(taken)
        chosen = set(taken)
        rest = [each for i, each in enumerate(deadlines) if i not in chosen]
        end = now + times.expected(max(1, len(taken)))
        for first in range(0, len(rest), largest):
            part = rest[first : first + largest]
            end += times.expected(len(part))
            in_time += sum(each >= end for each in part)
        score = in_time, -end, len(taken)
        if taken and (best_score is None or score > best_score):
            best, best_score = taken, score
    return best
