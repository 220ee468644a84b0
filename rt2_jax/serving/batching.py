"""Requests that wait together are answered together, off the event loop.

`docs/batching.md` says who is next, who is refused and why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rt2_jax.actions.policy import PolicyFault
from rt2_jax.serving.arrivals import Arrivals, worth_waiting
from rt2_jax.serving.busy import BusyError
from rt2_jax.serving.fault_isolation import answer_rows
from rt2_jax.serving.metrics import Metrics
from rt2_jax.serving.model_thread import ModelThread
from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.outcomes import (
    DeadlineError,
    PolicyError,
    SupersededError,
    UnsafeActionError,
)
from rt2_jax.serving.requests import Request
from rt2_jax.serving.tasks import ServedTask
from rt2_jax.serving.waiting_line import SequenceNumbers, Waiting, WaitingLine, choose_batch

Result = TypeVar("Result")

_LOG = logging.getLogger("rt2_jax.serving")
_QUEUE_S = 2.0  # of work may wait where nothing else is said
_LEAST_WAITING, _MOST_WAITING = 64, 1024
_UNREADABLE = (KeyError, TypeError, ValueError)  # what a policy raises of an observation


@dataclass(frozen=True)
class Answer:
    """What a request got.

    Attributes:
      result: the policy's, checked.
      queue_s: how long it waited.
      infer_s: how long its batch took.
      batch_size: how many were answered together.
    """

    result: Any
    queue_s: float
    infer_s: float
    batch_size: int


class BatchingQueue:
    """The one way to the model: a thread of its own, fed with whole batches.

    Args:
      tasks: that requests can ask for.
      options: `largest_batch`, `max_queue`, `max_wait_s`, `model_timeout_s`.
      metrics: is told what happens.

    Attributes:
      largest: batch; may be set.
      max_wait_s: how long a batch that is not full may wait for more, see `ServerOptions`; may be
        set.
    """

    def __init__(
        self, tasks: Sequence[ServedTask], options: ServerOptions, metrics: Metrics
    ) -> None:
        self._tasks = tuple(tasks)
        self._options = options
        self.largest = options.largest_batch
        self.max_wait_s = options.max_wait_s
        self._metrics = metrics
        self._line = WaitingLine()
        self._numbers = SequenceNumbers()
        self._arrivals = Arrivals()
        self._suspects: set[str] = set()
        self._more = asyncio.Event()
        self._thread = ModelThread()
        self._running: list[Waiting] = []
        self._work_task: asyncio.Task | None = None
        self._silent = ""

    @property
    def in_flight(self) -> int:
        """Requests that wait or are being answered."""
        return len(self._line) + len(self._running)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._line)

    @property
    def most_waiting(self) -> int:
        """Requests that may wait: `max_queue`, else two seconds of work, as far as is measured."""
        if self._options.max_queue is not None:
            return self._options.max_queue
        work = int(_QUEUE_S * max(task.times.per_second() for task in self._tasks))
        least = max(_LEAST_WAITING, 4 * self._options.largest_batch)
        return max(least, min(work, _MOST_WAITING))

    @property
    def silent(self) -> str:
        """Why no request is answered; "" where they are."""
        if self._silent:
            return self._silent
        running = self._work_task is not None and not self._work_task.done()
        return "" if running else "nothing is being answered"

    def start(self) -> None:
        """Begins to answer; called on the event loop."""
        self._work_task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Ends; whoever still waits is refused."""
        self._silent = "the server is ending"
        if self._work_task is not None:
            self._work_task.cancel()
        self._refuse_all(BusyError(self._silent))
        await asyncio.get_running_loop().run_in_executor(None, self._thread.stop)

    async def ask(self, request: Request, task: ServedTask, connection: str, client: str) -> Answer:
        """The answer to a request.

        Args:
          request: as `task.schema` read it.
          task: that it asks for.
          connection: that it came over; `seq` rises within it.
          client: whose turn it takes.

        Raises:
          BusyError: too many wait. SupersededError: a newer one of the session came.
          DeadlineError: not within its budget.
          PolicyError: the policy failed at it; other requests are not touched by it.
          UnsafeActionError: its answer is beyond the operator's limits.
          KeyError, TypeError, ValueError: the policy cannot read the observation, or `seq` does
            not rise.
        """
        loop, now = asyncio.get_running_loop(), time.perf_counter()
        each = Waiting(request, task, connection, client, now, loop.create_future())
        if self.silent:
            raise PolicyError(self.silent)
        if request.seq is not None:
            self._numbers.check(each.session, connection, request.seq)
            for older in self._line.numbered(each.session):
                self._refuse(older, _superseded(older, each))
        self._make_room(client)
        if request.seq is not None:
            self._numbers.note(each.session, connection, request.seq)
        self._arrivals.note(each.session, now)
        self._line.add(each)
        if request.budget_s is not None:
            each.alarm = loop.call_later(max(0.0, request.budget_s), self._refuse_late, each)
        self._metrics.waiting(len(self._line), self.in_flight)
        self._more.set()
        try:
            answer: Answer = await each.future
            return answer
        finally:
            self._line.remove(each)  # a client that has gone
            if each.alarm is not None:
                each.alarm.cancel()

    def reset(self, session: str) -> None:
        """Forgets a session, after what is being answered and before what is asked next."""
        self._numbers.forget(session)
        self._arrivals.forget(session)
        self._suspects.discard(session)
        for task in self._tasks:
            task.checks.forget(session)
            self._thread.run(task.policy.reset, session).add_done_callback(_log_failure)

    async def run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """The result of `work(*arguments)` on the model's thread, behind what runs there."""
        result: Result = await self._thread.run(work, *arguments)
        return result

    def _make_room(self, client: str) -> None:
        if len(self._line) < self.most_waiting:
            return
        rate = max(task.times.per_second() for task in self._tasks)
        retry_s = len(self._line) / rate if rate else 1.0
        busy = BusyError(
            f"{len(self._line)} requests wait, and no more may; ask again in {retry_s:.2g} s with "
            "a new observation",
            retry_s,
        )
        other = self._line.too_many(client)
        if other is None:
            raise busy
        self._refuse(other, busy)

    async def _work(self) -> None:
        try:
            while True:
                await self._more.wait()
                self._more.clear()
                until = float("inf")  # that a batch waits for others to join
                while batch := self._next_batch():
                    now = time.perf_counter()
                    pause = min(self._pause(batch, now), until - now)
                    if pause > 0:
                        until = min(until, now + pause)
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(self._more.wait(), pause)
                        self._more.clear()
                        continue
                    until = float("inf")
                    await self._run(batch)
        except Exception as error:  # never expected; what is known is that nothing is answered
            _LOG.exception("the queue has ended")
            self._silent = f"the queue has ended: {error}"
            self._refuse_all(PolicyError(self._silent))

    def _next_batch(self) -> list[Waiting]:
        """By turn; requests whose deadline is too near are refused before."""
        now = time.perf_counter()
        for each in self._line:
            times = each.task.times
            needs = 0.0 if times.doubtful(1, now) else times.expected(1)
            if each.deadline < now + needs:
                self._refuse_late(each)
        ready = self._line.next_ones()
        if ready and ready[0].session in self._suspects:
            return ready[:1]
        ready = [each for each in ready if each.session not in self._suspects]
        if len(ready) < 2:
            return ready
        deadlines = [each.deadline for each in ready]
        largest = self.largest
        chosen = choose_batch(deadlines, ready[0].task.times, largest, now)
        # None fits a batch of the size that is measured: the next is a try.
        return [ready[i] for i in chosen] or ready[:1]

    def _pause(self, batch: Sequence[Waiting], now: float) -> float:
        """How long a batch waits for more requests before it begins."""
        most = self.max_wait_s
        room = self.largest - len(batch)
        if most == 0 or room <= 0 or len(self._line) > len(batch):
            return 0.0
        times = batch[0].task.times
        expected = self._arrivals.expected(now, times.expected(len(batch)), self._line)
        slack_s = min(each.deadline for each in batch) - now
        pause = worth_waiting(len(batch), expected, times, self.largest, slack_s)
        return pause if most is None else min(pause, most)

    async def _run(self, batch: list[Waiting]) -> None:
        self._line.take(batch)
        self._running = batch
        self._metrics.waiting(len(self._line), self.in_flight)
        task, begin = batch[0].task, time.perf_counter()
        observations = [each.request.observation for each in batch]
        work = self._thread.run(answer_rows, task.policy, observations, batch[0].request.sampling)
        done, _ = await asyncio.wait({work}, timeout=self._options.model_timeout_s)
        if not done:
            await self._wait_for_silent_model(work)
            return
        results, whole = work.result()
        end = time.perf_counter()
        if whole and batch[0].request.sampling is None:
            task.times.note(len(batch), end - begin, end)
        self._metrics.batch(len(batch), end - begin, [begin - each.arrived for each in batch])
        for each, result in zip(batch, results, strict=True):
            self._give(each, result, Answer(None, begin - each.arrived, end - begin, len(batch)))
        self._running = []
        self._metrics.waiting(len(self._line), self.in_flight)

    async def _wait_for_silent_model(self, work: asyncio.Future) -> None:
        """Refuses everybody until the model says something; what that is nobody asked for."""
        self._silent = (
            f"the model has been silent for {self._options.model_timeout_s:g} s, and nothing is "
            "answered until it speaks"
        )
        _LOG.error("%s", self._silent)
        self._refuse_all(PolicyError(self._silent))
        self._metrics.silent(True)
        await asyncio.wait({work})
        _LOG.warning("the model speaks again; its answer came too late and is dropped")
        self._metrics.silent(False)
        self._silent = ""

    def _give(self, each: Waiting, result: Any, answer: Answer) -> None:
        if isinstance(result, Exception):
            if len(self._suspects) < _MOST_WAITING:
                self._suspects.add(each.session)
            error = result
            if isinstance(result, PolicyFault) or not isinstance(result, _UNREADABLE):
                error = PolicyError(f"{type(result).__name__}: {result}")
                error.__cause__ = result
            self._refuse(each, error)
            return
        self._suspects.discard(each.session)
        self._arrivals.answered(each.session, time.perf_counter())
        if each.future.done():
            return
        if each.deadline < time.perf_counter():
            self._refuse_late(each)
            return
        try:
            checked = each.task.checks.check(each.request.observation, result)
        except (PolicyError, UnsafeActionError) as error:
            self._refuse(each, error)
            return
        each.future.set_result(Answer(checked, answer.queue_s, answer.infer_s, answer.batch_size))

    def _refuse(self, each: Waiting, error: Exception) -> None:
        self._line.remove(each)
        if not each.future.done():
            each.future.set_exception(error)

    def _refuse_all(self, error: Exception) -> None:
        for each in (*self._line, *self._running):
            self._refuse(each, error)
        self._running = []

    def _refuse_late(self, each: Waiting) -> None:
        if each.future.done():
            return
        waited = 1000 * (time.perf_counter() - each.arrived)
        budget = 1000 * (each.request.budget_s or 0)
        begun = each in self._running
        needs = 1000 * each.task.times.expected(1)
        what = f"waited {waited:.0f} ms" + (
            f", and an answer takes {needs:.0f} ms" if needs else ""
        )
        if begun:
            what = f"the model is at it, not ready after {waited:.0f} ms"
        self._metrics.missed("answering" if begun else "waiting")
        self._refuse(
            each, DeadlineError(f"{what}; the budget was {budget:.0f} ms, so there is no action")
        )


def _superseded(older: Waiting, newer: Waiting) -> SupersededError:
    text = f"request {newer.request.seq} of session {newer.session!r} came before this was begun"
    if newer.connection != older.connection:
        text += f", over {newer.connection}; two robots need two names of sessions"
    return SupersededError(text)


def _log_failure(reset: asyncio.Future) -> None:
    if not reset.cancelled() and (error := reset.exception()) is not None:
        _LOG.error("a session could not be forgotten: %s", error)
