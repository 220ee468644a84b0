"""What all wires share: a request is read, answered, counted and logged, whatever carried it."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rt2_jax.serving.batching import BatchingQueue
from rt2_jax.serving.exchange import Exchange
from rt2_jax.serving.metrics import Metrics
from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.outcomes import outcome_of
from rt2_jax.serving.tasks import Policies, ServedTask, TaskTable

_LOG = logging.getLogger("rt2_jax.serving")


class PolicyService:
    """One policy or several, their queue, their counters and their log.

    Args:
      policy: compiled and warm; one for each task by name where there are several.
      options: how it is served.

    Attributes:
      tasks: what can be asked for, and what clients are told.
      schema: of the first task's requests.
      metrics: the counters.
      draining: set when the server is to end: no new request is taken, and it is not ready.
    """

    def __init__(self, policy: Policies, options: ServerOptions) -> None:
        self.options = options
        self.tasks = TaskTable(policy, options.safety, options.largest_batch)
        self.schema = self.tasks.served[0].schema
        self.metrics = Metrics()
        self.draining = False
        self._queue: BatchingQueue | None = None
        self._connections = itertools.count(1)

    @property
    def in_flight(self) -> int:
        """Requests that wait or are being answered."""
        return 0 if self._queue is None else self._queue.in_flight

    @property
    def working(self) -> bool:
        """Whether requests are being answered at all."""
        return self.silent == ""

    @property
    def silent(self) -> str:
        """Why no request is answered; "" where they are."""
        return "nothing is being answered" if self._queue is None else self._queue.silent

    @property
    def waiting(self) -> int:
        """Requests that wait for the model."""
        return 0 if self._queue is None else self._queue.waiting

    def start(self) -> None:
        """Begins to answer; called on the event loop."""
        self._queue = BatchingQueue(self.tasks.served, self.options, self.metrics)
        self._queue.start()
        if self.options.log is not None:
            self.options.log.start(self.metrics)

    async def stop(self) -> None:
        """Ends; whoever still waits is refused, and the log is written to its end."""
        assert self._queue is not None
        await self._queue.stop()
        if self.options.log is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.options.log.close)

    def enter(self) -> str:
        """A connection that stays open begins; its name."""
        self.metrics.connections(1)
        return f"connection-{next(self._connections)}"

    async def leave(self, connection: str) -> None:
        """It has ended; frames of its requests that named no session are forgotten."""
        self.metrics.connections(-1)
        self._note(Exchange(connection).end("left"))
        if self._queue is not None and not self.draining:
            self._queue.reset(connection)

    async def reset(self, session: str, connection: str) -> None:
        """An episode of a session begins: before its next request, its frames are forgotten."""
        assert self._queue is not None
        exchange = Exchange(connection, session=session)
        self._queue.reset(session)
        self._note(exchange.end("reset"))

    async def ask(
        self,
        data: Any,
        connection: str,
        write: Callable[[Exchange], bytes | str],
        task: ServedTask | None = None,
        client: str | None = None,
    ) -> Exchange:
        """Reads a request and has it answered; it never raises what is a fault of the request.

        Args:
          data: a map as `Schema.read` takes it; wires of other shapes make one first.
          connection: its name, the session of requests that name none.
          write: the answer as the wire sends it, of an exchange with `request`, `answer` and
            `warnings`; a `TypeError` says that it cannot be sent.
          task: of requests that name none; None where they have to, if there are several.
          client: whose turn the request takes, such as the name of its key; by default the
            connection's.

        Returns:
          What became of it: `outcome` is `answered`, and `reply` there; or one of
          `outcomes.WORDS`, and `error` says why. It is counted and logged.
        """
        assert self._queue is not None
        exchange = Exchange(connection)
        try:
            exchange.note(data)
            if self.draining:
                raise ValueError("the server is ending; connect to another, or again in a while")
            task = self.tasks.choose(data, task)
            exchange.request = request = task.schema.read(data, connection)
        except (KeyError, TypeError, ValueError) as error:
            return self.end(exchange, "refused", message(error))
        try:
            exchange.answer = answer = await self._queue.ask(
                request, task, connection, client or connection
            )
        except asyncio.CancelledError:
            self.metrics.outcome("gone")
            raise
        except Exception as error:
            if (outcome := outcome_of(error)) == "failed":
                _LOG.error("%s: %s", connection, message(error), exc_info=error.__cause__)
            exchange.retry_s = getattr(error, "retry_s", None)
            return self.end(exchange, outcome, message(error))
        self._count(request.unread, answer.result)
        said = [f"the policy does not read {name}" for name in answer.result.get("unused", ())]
        said += [
            f"state {name!r} is outside the range that training saw"
            for name in answer.result.get("state_outside", ())
        ]
        if answer.result.get("low_confidence"):
            said.append("the policy is not sure of this action")
        if answer.result.get("held_back"):
            said.append(f"brought back to the limits: {', '.join(answer.result['held_back'])}")
        exchange.warnings = (*request.warnings, *said)
        try:
            exchange.reply = write(exchange)
        except TypeError as error:
            exchange.answer = None
            error_text = f"the policy's answer cannot be sent: {message(error)}"
            return self.end(exchange, "failed", error_text)
        return self.end(exchange, "answered")

    def _count(self, unread: Iterable[str], result: Mapping[str, Any]) -> None:
        for name in (*unread, *result.get("unused", ())):
            self.metrics.unread(name)
        for name in result.get("held_back", ()):
            self.metrics.held_back(name)
        if result.get("low_confidence"):
            self.metrics.low_confidence()

    def refuse(self, connection: str, error: Exception) -> Exchange:
        """Counts and logs what could not even be read as a request."""
        return self.end(Exchange(connection), "refused", message(error))

    def end(self, exchange: Exchange, outcome: str, error: str = "") -> Exchange:
        """Counts and logs what became of a request."""
        exchange.end(outcome, error)
        self.metrics.outcome(outcome, None if exchange.request is None else exchange.total_s)
        self._note(exchange)
        return exchange

    def _note(self, exchange: Exchange) -> None:
        if self.options.log is not None:
            self.options.log.offer(exchange)


def say_once(warnings: Iterable[str], told: set[str], connection: str) -> list[str]:
    """Those that were not told to a connection before; now they are, and they are logged."""
    fresh = [each for each in warnings if each not in told]
    for warning in fresh:
        told.add(warning)
        _LOG.warning("%s: %s", connection, warning)
    return fresh


def message(error: Exception) -> str:
    """What an error says, without the quotes of a `KeyError`."""
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)
