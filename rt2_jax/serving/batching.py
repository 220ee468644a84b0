"""Requests that wait together are answered together, off the event loop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rt2_jax.actions.policy import Observation, check_policy_output
from rt2_jax.actions.sampling import Sampling
from rt2_jax.actions.space import ActionSpace
from rt2_jax.serving.metrics import Metrics
from rt2_jax.serving.requests import BatchPolicy, Request


class PolicyError(RuntimeError):
    """The policy failed, or its answer is no action; the request was in order."""


class DeadlineError(TimeoutError):
    """The answer cannot be, or was not, ready within the request's budget."""


@dataclass(frozen=True)
class Answer:
    """What a request got.

    Attributes:
      result: the policy's, checked.
      queue_s: how long it waited.
      infer_s: how long its batch took.
      batch_size: how many were answered together.
    """

    result: Mapping[str, Any]
    queue_s: float
    infer_s: float
    batch_size: int


@dataclass
class _Waiting:
    request: Request
    arrived: float
    future: asyncio.Future

    def late_at(self, when: float) -> float:
        """Seconds past the deadline; negative before it."""
        budget = self.request.budget_s
        return float("-inf") if budget is None else when - self.arrived - budget


class BatchingQueue:
    """The one way to the model: a thread of its own, fed with whole batches.

    Args:
      policy: answers batches.
      action_space: that every answer is checked against.
      largest: batch.
      metrics: is told what happens.
    """

    def __init__(
        self, policy: BatchPolicy, action_space: ActionSpace, largest: int, metrics: Metrics
    ) -> None:
        self._policy = policy
        self._space = action_space
        self._largest = largest
        self._metrics = metrics
        self._waiting: deque[_Waiting] = deque()
        self._more = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._fastest_s: dict[int, float] = {}
        self._running = 0
        self._task: asyncio.Task | None = None

    @property
    def in_flight(self) -> int:
        """Requests that wait or are being answered."""
        return len(self._waiting) + self._running

    def start(self) -> None:
        """Begins to answer; called on the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    @property
    def working(self) -> bool:
        """Whether requests are being answered at all."""
        return self._task is not None and not self._task.done()

    async def stop(self) -> None:
        """Ends; whoever still waits is refused."""
        if self._task is not None:
            self._task.cancel()
        for each in self._waiting:
            each.future.cancel()
        self._waiting.clear()
        self._thread.shutdown(wait=False)

    async def ask(self, request: Request) -> Answer:
        """The answer to a request.

        Raises:
          DeadlineError: not within its budget.
          PolicyError: the policy failed at it; other requests are not touched by it.
          KeyError, TypeError, ValueError: the policy cannot read the observation.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(request, time.perf_counter(), future))
        self._metrics.waiting(self.in_flight)
        self._more.set()
        return await future

    async def reset(self, session: str) -> None:
        """Forgets a session, after what is being answered."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._policy.reset, session)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._more.wait()
            self._more.clear()
            while batch := self._next_batch():
                self._running = len(batch)
                begin = time.perf_counter()
                observations = [each.request.observation for each in batch]
                # Asked for only where requests do: most policies know nothing of it.
                sampling = batch[0].request.sampling
                asked = () if sampling is None else (sampling,)
                results = await loop.run_in_executor(
                    self._thread, self._answer, observations, asked
                )
                end = time.perf_counter()
                size = len(batch)
                # The least: what was slow once, and a batch done one by one, are no measure.
                self._fastest_s[size] = min(end - begin, self._fastest_s.get(size, end - begin))
                self._metrics.batch(len(batch), end - begin)
                for each, result in zip(batch, results, strict=True):
                    self._give(each, result, begin, end, len(batch))
                self._running = 0
                self._metrics.waiting(self.in_flight)

    def _next_batch(self) -> list[_Waiting]:
        """The oldest requests, one to a session: frames of a session come one after the other.

        All of them draw their answers alike, or none does.
        """
        now = time.perf_counter()
        batch: list[_Waiting] = []
        sessions: set[str | None] = set()
        later: deque[_Waiting] = deque()
        while self._waiting and len(batch) < self._largest:
            each = self._waiting.popleft()
            if each.future.done():  # the client has gone
                continue
            if each.late_at(now + self._fastest()) > 0:
                self._refuse_late(each, now, begun=False)
            elif each.request.observation.session in sessions or (
                batch and each.request.sampling != batch[0].request.sampling
            ):
                later.append(each)
            else:
                sessions.add(each.request.observation.session)
                batch.append(each)
        self._waiting.extendleft(reversed(later))
        return batch

    def _fastest(self) -> float:
        return min(self._fastest_s.values(), default=0.0)

    def _answer(
        self, observations: Sequence[Observation], sampling: tuple[Sampling, ...]
    ) -> list[Any]:
        """A result or an exception for each; on the model's thread."""
        try:
            infer_batch: Any = self._policy.infer_batch
            results = list(infer_batch(observations, *sampling))
            if len(results) != len(observations):
                raise RuntimeError(
                    f"the policy gave {len(results)} answers to {len(observations)} observations"
                )
            return results
        except Exception as error:
            if len(observations) == 1:
                return [error]
            # One of them is at fault, and the others are to be answered.
            return [self._answer([each], sampling)[0] for each in observations]

    def _give(self, each: _Waiting, result: Any, begin: float, end: float, batch_size: int) -> None:
        if each.future.done():
            return
        if isinstance(result, (KeyError, TypeError, ValueError)):
            each.future.set_exception(result)
            return
        if isinstance(result, Exception):
            failure = PolicyError(f"{type(result).__name__}: {result}")
            failure.__cause__ = result
            each.future.set_exception(failure)
            return
        if each.late_at(end) > 0:
            self._refuse_late(each, end, begun=True)
            return
        try:
            check_policy_output(self._space, result, "policy")
        except (KeyError, TypeError, ValueError) as error:
            each.future.set_exception(PolicyError(str(error.args[0] if error.args else error)))
            return
        each.future.set_result(Answer(result, begin - each.arrived, end - begin, batch_size))

    def _refuse_late(self, each: _Waiting, now: float, begun: bool) -> None:
        waited = 1000 * (now - each.arrived)
        budget = 1000 * (each.request.budget_s or 0)
        what = (
            f"the answer took {waited:.0f} ms"
            if begun
            else f"waited {waited:.0f} ms, and an answer takes {1000 * self._fastest():.0f} ms"
        )
        each.future.set_exception(
            DeadlineError(f"{what}; the budget was {budget:.0f} ms, so there is no action")
        )
