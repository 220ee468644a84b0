"""What all wires share: a request is read, answered, counted and logged, whatever carried it."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterable
from typing import Any

from rt2_jax.serving.batching import BatchingQueue, DeadlineError
from rt2_jax.serving.busy import BusyError
from rt2_jax.serving.exchange import Exchange
from rt2_jax.serving.gate import CLIENT
from rt2_jax.serving.input_checks import check_request, for_clients
from rt2_jax.serving.limits import Limits
from rt2_jax.serving.metrics import Metrics
from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.requests import BatchPolicy, Schema

_LOG = logging.getLogger("rt2_jax.serving")
_LONGEST = 1000  # characters of a message: it may quote what a client sent
_MOST_WARNINGS = 100
_NO_MORE = "there were too many warnings on this connection; no more are told"


class PolicyService:
    """One policy, its queue, its counters and its log.

    Args:
      policy: compiled and warm.
      options: how it is served.

    Attributes:
      schema: which requests can be answered, and what clients are told.
      metrics: the counters.
      limits: of what clients may send.
      draining: set when the server is to end: no new request is taken, and it is not ready.
    """

    def __init__(self, policy: BatchPolicy, options: ServerOptions) -> None:
        self.options = options
        self.schema = Schema(policy.metadata)
        self.metrics = Metrics()
        self.limits = options.limits or Limits.of_policy(policy.metadata)
        self.draining = False
        self._policy = policy
        self._queue: BatchingQueue | None = None
        self._connections = itertools.count(1)

    @property
    def in_flight(self) -> int:
        """Requests that wait or are being answered."""
        return 0 if self._queue is None else self._queue.in_flight

    @property
    def working(self) -> bool:
        """Whether requests are being answered at all."""
        return self._queue is not None and self._queue.working

    def start(self) -> None:
        """Begins to answer; called on the event loop."""
        self._queue = BatchingQueue(
            self._policy, self.schema.action_space, self.options.largest_batch, self.metrics
        )
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
        key = CLIENT.get().name
        return f"{key}{'/' if key else ''}connection-{next(self._connections)}"

    async def leave(self, connection: str) -> None:
        """It has ended; frames of its requests that named no session are forgotten."""
        self.metrics.connections(-1)
        self._note(Exchange(connection).end("left"))
        if self._queue is not None and not self.draining:
            await self._queue.reset(connection)

    async def reset(self, session: str, connection: str) -> None:
        """An episode of a session begins: its frames are forgotten."""
        assert self._queue is not None
        exchange = Exchange(connection, session=session)
        await self._queue.reset(session)
        self._note(exchange.end("reset"))

    async def ask(
        self, data: Any, connection: str, write: Callable[[Exchange], bytes | str]
    ) -> Exchange:
        """Reads a request and has it answered; it never raises what is a fault of the request.

        Args:
          data: a map as `Schema.read` takes it; wires of other shapes make one first.
          connection: its name, the session of requests that name none.
          write: the answer as the wire sends it, of an exchange with `request`, `answer` and
            `warnings`; a `TypeError` says that it cannot be sent.

        Returns:
          What became of it: `outcome` is `answered`, and `reply` there; or `refused`, `busy`,
          `late` or `failed`, and `error` says why. It is counted and logged.
        """
        assert self._queue is not None
        exchange = Exchange(connection)
        try:
            exchange.note(data)
            if self.draining:
                raise ValueError("the server is ending; connect to another, or again in a while")
            CLIENT.get().count()
            check_request(data, self.limits)
            exchange.request = request = self.schema.read(data, connection)
        except BusyError as error:
            exchange.retry_s = error.retry_s
            return self.end(exchange, "busy", message(error))
        except (KeyError, TypeError, ValueError) as error:
            return self.end(exchange, "refused", message(error))
        try:
            exchange.answer = answer = await self._queue.ask(request)
        except DeadlineError as error:
            return self.end(exchange, "late", message(error))
        except (KeyError, TypeError, ValueError) as error:
            return self.end(exchange, "refused", message(error))
        except Exception as error:
            _LOG.exception("%s: the policy failed", connection)
            told = for_clients(error, message(error), self.options.debug_errors)
            return self.end(exchange, "failed", told)
        said = [f"the policy does not read {name}" for name in answer.result.get("unused", ())]
        said += [
            f"state {name!r} is outside the range that training saw"
            for name in answer.result.get("state_outside", ())
        ]
        exchange.warnings = (*request.warnings, *said)
        try:
            exchange.reply = write(exchange)
        except TypeError as error:
            exchange.answer = None
            error_text = f"the policy's answer cannot be sent: {message(error)}"
            return self.end(exchange, "failed", error_text)
        return self.end(exchange, "answered")

    def refuse(self, connection: str, error: Exception) -> Exchange:
        """Counts and logs what could not even be read as a request."""
        return self.end(Exchange(connection), "refused", message(error))

    def end(self, exchange: Exchange, outcome: str, error: str = "") -> Exchange:
        """Counts and logs what became of a request."""
        exchange.end(outcome, error)
        self.metrics.outcome(outcome, None if exchange.request is None else exchange.total_s)
        if key := CLIENT.get().name:
            self.metrics.key(key, outcome)
        self._note(exchange)
        return exchange

    def _note(self, exchange: Exchange) -> None:
        if self.options.log is not None:
            self.options.log.offer(exchange)


def say_once(warnings: Iterable[str], told: set[str], connection: str) -> list[str]:
    """Those that were not told to a connection before; now they are, and they are logged."""
    fresh = [each for each in warnings if each not in told]
    if len(told) + len(fresh) > _MOST_WARNINGS:
        fresh = [] if _NO_MORE in told else [_NO_MORE]
    for warning in fresh:
        told.add(warning)
        _LOG.warning("%s: %s", connection, warning)
    return fresh


def message(error: Exception) -> str:
    """What an error says, without the quotes of a `KeyError`."""
    said = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]} ..."
