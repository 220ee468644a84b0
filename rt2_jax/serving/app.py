"""The web application: the robots' websocket, and the pages that operators ask."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from rt2_jax.client.frames import DEADLINE, pack, unpack
from rt2_jax.serving.batching import BatchingQueue, DeadlineError
from rt2_jax.serving.exchange import Exchange
from rt2_jax.serving.metrics import Metrics
from rt2_jax.serving.requests import BatchPolicy, Schema

if TYPE_CHECKING:  # it needs `array_record`, which a server without a log does not
    from rt2_jax.serving.request_logger import RequestLogger

_LOG = logging.getLogger("rt2_jax.serving")


class PolicyApp:
    """One policy behind one application.

    Args:
      policy: compiled and warm.
      largest_batch: of requests answered together.
      token: that clients must show; None for none.
      log: what requests and answers are written to; it ends with the application.

    Attributes:
      draining: set when the server is to end: no new request is taken, and it is not ready.
    """

    def __init__(
        self,
        policy: BatchPolicy,
        largest_batch: int = 8,
        token: str | None = None,
        log: RequestLogger | None = None,
    ) -> None:
        self._policy = policy
        self._largest = largest_batch
        self._token = token
        self._log = log
        self.schema = Schema(policy.metadata)
        self.metrics = Metrics()
        self.draining = False
        self._queue: BatchingQueue | None = None
        self._connections = itertools.count(1)
        self.app = Starlette(
            routes=[
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metadata", self._metadata),
                Route("/metrics", self._metrics),
                WebSocketRoute("/{path:path}", self._websocket),
            ],
            lifespan=self._lifespan,
        )

    @property
    def in_flight(self) -> int:
        """Requests that wait or are being answered."""
        return 0 if self._queue is None else self._queue.in_flight

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self._queue = BatchingQueue(
            self._policy, self.schema.action_space, self._largest, self.metrics
        )
        self._queue.start()
        if self._log is not None:
            self._log.start(self.metrics)
        yield
        await self._queue.stop()
        if self._log is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._log.close)

    async def _healthz(self, request: Request) -> Response:
        return PlainTextResponse("OK\n")

    async def _readyz(self, request: Request) -> Response:
        if self.draining:
            return PlainTextResponse("ending\n", status_code=503)
        if self._queue is None or not self._queue.working:
            return PlainTextResponse("nothing is being answered\n", status_code=503)
        return PlainTextResponse("OK\n")

    async def _metadata(self, request: Request) -> Response:
        return JSONResponse(self.schema.metadata) if self._may(request) else _forbidden()

    async def _metrics(self, request: Request) -> Response:
        if not self._may(request):
            return _forbidden()
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    def _may(self, connection: HTTPConnection) -> bool:
        """`Authorization: Bearer TOKEN`, or `Api-Key TOKEN` as openpi's clients write it."""
        if self._token is None:
            return True
        _, _, shown = connection.headers.get("authorization", "").partition(" ")
        return hmac.compare_digest(shown.encode(), self._token.encode())

    async def _websocket(self, socket: WebSocket) -> None:
        if not self._may(socket) or self.draining:
            await socket.close()  # before it is accepted, this is status 403
            return
        await socket.accept()
        name = f"connection-{next(self._connections)}"
        told: set[str] = set()
        previous_ms: float | None = None
        self.metrics.connections(1)
        try:
            await socket.send_bytes(pack(self.schema.metadata))
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                begin = time.perf_counter()
                answer = await self._answer(message.get("bytes"), name, told, previous_ms)
                if isinstance(answer, str):
                    await socket.send_text(answer)
                else:
                    await socket.send_bytes(answer)
                previous_ms = 1000 * (time.perf_counter() - begin)
        except WebSocketDisconnect:
            pass
        finally:
            self.metrics.connections(-1)
            self._note(Exchange(name).end("left"))
            if self._queue is not None and not self.draining:
                await self._queue.reset(name)  # frames of requests that named no session

    async def _answer(
        self, frame: bytes | None, name: str, told: set[str], previous_ms: float | None
    ) -> bytes | str:
        """A frame of the answer, or the text of an error; the connection stays open."""
        assert self._queue is not None
        exchange = Exchange(name)
        try:
            if frame is None:
                raise TypeError("request: found a text frame, expected a binary msgpack frame")
            data = unpack(frame)
            if isinstance(data, dict) and set(data) == {"reset"}:
                exchange.session = str(data["reset"] or name)
                await self._queue.reset(exchange.session)
                self._note(exchange.end("reset"))
                return pack({"reset": True})
            exchange.note(data)
            if self.draining:
                raise ValueError("the server is ending; connect to another, or again in a while")
            exchange.request = request = self.schema.read(data, name)
        except (KeyError, TypeError, ValueError) as error:
            return self._end(exchange, "refused", f"REFUSED: {_message(error)}")
        try:
            exchange.answer = answer = await self._queue.ask(request)
        except DeadlineError as error:
            return self._end(exchange, "late", f"{DEADLINE}: {error}")
        except (KeyError, TypeError, ValueError) as error:
            return self._end(exchange, "refused", f"REFUSED: {_message(error)}")
        except Exception as error:
            _LOG.exception("%s: the policy failed", name)
            return self._end(exchange, "failed", f"FAILED: {_message(error)}")
        timing = {
            "infer_ms": 1000 * answer.infer_s,
            "queue_ms": 1000 * answer.queue_s,
            "batch_size": answer.batch_size,
        }
        if previous_ms is not None:
            timing["prev_total_ms"] = previous_ms
        result = answer.result
        said = [f"the policy does not read {name}" for name in result.get("unused", ())]
        said += [
            f"state {name!r} is outside the range that training saw"
            for name in result.get("state_outside", ())
        ]
        warnings = [each for each in (*request.warnings, *said) if each not in told]
        exchange.warnings = tuple(warnings)
        for warning in warnings:
            told.add(warning)
            _LOG.warning("%s: %s", name, warning)
        reply = {
            **{key: _plain(value) for key, value in answer.result.items()},
            "seq": request.seq,
            "session": request.observation.session,
            "warnings": warnings,
            "server_timing": timing,
            "policy_timing": {"infer_ms": timing["infer_ms"]},
        }
        try:
            packed = pack(reply)
        except TypeError as error:
            exchange.answer = None
            return self._end(
                exchange, "failed", f"FAILED: the policy's answer cannot be sent: {error}"
            )
        self._end(exchange, "answered")
        return packed

    def _end(self, exchange: Exchange, outcome: str, error: str = "") -> str:
        """Counts and logs what became of a request; returns the error."""
        exchange.end(outcome, error)
        self.metrics.outcome(outcome, None if exchange.request is None else exchange.total_s)
        self._note(exchange)
        return error

    def _note(self, exchange: Exchange) -> None:
        if self._log is not None:
            self._log.offer(exchange)


def make_app(policy: BatchPolicy, largest_batch: int = 8, token: str | None = None) -> Starlette:
    """The ASGI application of a policy, for a server of one's own."""
    return PolicyApp(policy, largest_batch, token).app


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _message(error: Exception) -> str:
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)


def _forbidden() -> Response:
    return PlainTextResponse("a token is needed: Authorization: Bearer TOKEN\n", status_code=401)
