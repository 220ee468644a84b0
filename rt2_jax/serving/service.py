"""What all wires share: a request is read, answered, counted and logged, whatever carried it."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rt2_jax.serving.batching import BatchingQueue
from rt2_jax.serving.busy import BusyError
from rt2_jax.serving.exchange import Exchange
from rt2_jax.serving.gate import CLIENT
from rt2_jax.serving.input_checks import check_request, for_clients
from rt2_jax.serving.metrics import Metrics
from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.outcomes import outcome_of
from rt2_jax.serving.pictures import PictureDecoder
from rt2_jax.serving.requests import Pictures, Schema
from rt2_jax.serving.status.live import LiveSessions
from rt2_jax.serving.tasks import Policies, ServedTask, TaskTable
from rt2_jax.serving.text import TextQuestion, TextQueue

_LOG = logging.getLogger("rt2_jax.serving")
_LONGEST = 1000  # characters of a message: it may quote what a client sent
_MOST_WARNINGS = 100
_NO_MORE = "there were too many warnings on this connection; no more are told"
_LONGEST_WAIT_S = 1.0


class PolicyService:
    """One policy or several, their queue, their counters and their log.

    Args:
      policy: compiled and warm; one for each task by name where there are several.
      options: how it is served.

    Attributes:
      tasks: what can be asked for, and what clients are told.
      schema: of the first task's requests.
      metrics: the counters.
      limits: of what clients may send.
      text: what answers in words; None where the policy does not.
      live: the newest sessions, for the status page; None without one.
      draining: set when the server is to end: no new request is taken, and it is not ready.
    """

    def __init__(self, policy: Policies, options: ServerOptions) -> None:
        self.options = options
        self.tasks = TaskTable(policy, options.safety, options.largest_batch, options.cameras)
        self.schema = self.tasks.served[0].schema
        self.metrics = Metrics()
        self.limits = options.limits or self.tasks.limits
        self.text: TextQueue | None = None
        self._pictures = PictureDecoder(self.limits)
        self.live = LiveSessions() if options.status else None
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

    @property
    def knobs(self) -> dict[str, float]:
        """What vla-eval may read and set: `max_batch_size`, and `max_wait_time` in seconds."""
        assert self._queue is not None
        return {
            "max_batch_size": self._queue.largest,
            "max_wait_time": self._queue.max_wait_s or 0.0,
        }

    def set_knob(self, name: str, value: float) -> None:
        """Sets one of `knobs`.

        Raises:
          ValueError: a value out of its range.
        """
        assert self._queue is not None
        if name == "max_batch_size":
            if not 1 <= value <= self.options.largest_batch:
                raise ValueError(f"found {value}, expected 1 to {self.options.largest_batch}")
            self._queue.largest = int(value)
        else:
            if not 0 <= value <= _LONGEST_WAIT_S:
                raise ValueError(f"found {value}, expected 0 to {_LONGEST_WAIT_S:g} seconds")
            self._queue.max_wait_s = float(value)

    def missing(self) -> str:
        """Why the server isn't ready, in words; "" if it is."""
        if self.draining:
            return "ending"
        return self.silent

    def start(self) -> None:
        """Begins to answer; called on the event loop."""
        self._queue = BatchingQueue(self.tasks.served, self.options, self.metrics)
        self._queue.start()
        answer = getattr(self.tasks.served[0].policy, "answer", None)
        writes = self.schema.metadata.get("writes_text", True) and self.options.questions
        if answer is not None and writes:
            self.text = TextQueue(answer, self._queue)
        if self.options.health is not None:
            self.options.health.ready = self.missing
        if self.options.log is not None:
            self.options.log.start(self.metrics)

    async def stop(self) -> None:
        """Ends; whoever still waits is refused, and the log is written to its end."""
        assert self._queue is not None
        await self._queue.stop()
        self._pictures.close()
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
        await self.forget(connection)

    async def forget(self, session: str) -> None:
        """Nothing more comes of a session that no client named: its frames are forgotten."""
        if self._queue is not None and not self.draining:
            self._queue.reset(session)

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
            CLIENT.get().count()
            check_request(data, self.limits)
            exchange.task = task = self.tasks.choose(data, task)
            pictures = await self._decoded(data, task.schema)
            exchange.request = request = task.schema.read(data, connection, pictures)
        except BusyError as error:
            exchange.retry_s = error.retry_s
            return self.end(exchange, "busy", message(error))
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
            exchange.retry_s = getattr(error, "retry_s", 0.0)
            said = for_clients(error, message(error), self.options.debug_errors)
            return self.end(exchange, outcome, said)
        self._count(request.unread, answer.result)
        notes = [f"the policy does not read {name}" for name in answer.result.get("unused", ())]
        notes += task.schema.squeezed(request.observation.images)
        ranges = task.schema.metadata.get("state_ranges", {})
        for name in answer.result.get("state_outside", ()):
            low_high = f", {ranges[name][0]:g} to {ranges[name][1]:g}" if name in ranges else ""
            notes.append(f"state {name!r} is outside the range that training saw{low_high}")
        if answer.result.get("low_confidence"):
            notes.append("the policy is not sure of this action")
        if answer.result.get("held_back"):
            notes.append(f"brought back to the limits: {', '.join(answer.result['held_back'])}")
        exchange.warnings = (*request.warnings, *notes)
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

    async def _decoded(self, data: Any, schema: Schema) -> Pictures | None:
        """The pictures of a request, those that are encoded as pixels; off the event loop."""
        if not isinstance(data, Mapping):
            return None  # whoever reads it says so
        found = schema.pictures(data)
        if not any(isinstance(each, bytes) for each in found.of_views.values()):
            return found
        of_views = await self._pictures.decode_pictures(found.of_views)
        return dataclasses.replace(found, of_views=of_views)

    async def answer_text(
        self, question: TextQuestion, picture: bytes | None
    ) -> tuple[str, list[str], str]:
        """Has a question answered in words; it is counted, and never raises what is its fault.

        Args:
          question: without its picture.
          picture: JPEG or PNG, or None.

        Returns:
          The outcome as `ask` names it, the texts, and what was said instead of them.
        """
        assert self.text is not None
        texts: list[str] = []
        outcome, error_text = "answered", ""
        try:
            CLIENT.get().count()
            if picture is not None:
                pixels = await self._pictures.decode(picture, "request: image")
                question = dataclasses.replace(question, picture=pixels)
            texts = await self.text.ask(question)
        except Exception as error:
            if (outcome := outcome_of(error)) == "failed":
                _LOG.exception("a question: the policy failed")
            error_text = for_clients(error, message(error), self.options.debug_errors)
        self.metrics.question(outcome)
        return outcome, texts, error_text

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
        if self.live is not None:
            self.live.note(exchange)


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
