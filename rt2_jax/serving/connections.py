"""Connections that are slow, stuck or too many: uvicorn's protocols, with limits of time and room.

uvicorn itself waits for ever for the first byte of a request and for the rest of one, and for a
client to read what it was sent. Here each connection is looked at every second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from rt2_jax.serving.gate import KNOWN
from rt2_jax.serving.limits import Limits
from rt2_jax.serving.metrics import Metrics

_LOG = logging.getLogger("rt2_jax.serving")


class _Watched:
    """What both protocols share."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    client: tuple[str, int] | None

    def __init__(self, *args: Any, limits: Limits, metrics: Metrics, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._metrics = metrics
        self.opened = self.loop.time()
        self._request_since: float | None = self.opened
        self._stuck_since: float | None = None

    def end(self, reason: str) -> None:
        """Lets go of it at once; what was to be sent is lost."""
        self._note(reason)
        self.transport.abort()

    def look(self, now: float) -> None:
        """Ends it if it has taken too long; called every second."""
        if not self._is_stuck():
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since > self._limits.send_s:
            self.end("unread answer")
            return
        since = self._request_since
        if (
            since is not None
            and not self.transport.is_closing()
            and now - since > self._limits.request_s
        ):
            self.end_slow()

    def end_slow(self) -> None:
        """Ends a request that does not come to its end."""
        self.end("slow request")

    def _note(self, reason: str) -> None:
        self._metrics.turned_away(reason)
        _LOG.info("let go of %s: %s", (self.client or ("?",))[0], reason)

    def is_stranger(self) -> bool:
        """Whether it has shown no key yet, where one is needed, or asked nothing."""
        raise NotImplementedError

    def _is_stuck(self) -> bool:
        raise NotImplementedError

    def _bound_unread(self) -> None:
        # Answers to pings are written whether or not the client reads.
        if self.transport.get_write_buffer_size() > self._limits.unread_bytes:
            self.end("unread answer")


class HTTPConnection(_Watched, H11Protocol):
    """A connection until it becomes a websocket, if it does."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        watched = cast(set[_Watched], self.connections)  # all are of this module
        strangers = [each for each in watched if each.is_stranger()]
        limits = self._limits
        if len(strangers) > limits.strangers or len(self.connections) > limits.connections:
            # Robots that are connected keep their places; of the others the oldest gives way.
            oldest = min(strangers, key=lambda each: each.opened)
            if oldest is self:
                self._end_with(503, "full", "all connections are taken")
            else:
                oldest.end("full")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._request_since = None
        elif self._request_since is None:
            self._request_since = self.loop.time()
        self._bound_unread()

    def end_slow(self) -> None:
        said = f"a request must be whole within {self._limits.request_s:g} s"
        self._end_with(408, "slow request", said)

    def is_stranger(self) -> bool:
        return self.scope is None or not self.scope.get(KNOWN)

    def _is_stuck(self) -> bool:
        return self.flow.write_paused or self.transport.is_closing()

    def _end_with(self, status: int, reason: str, text: str) -> None:
        if self.cycle is not None and self.cycle.response_started:
            self.end(reason)
            return
        self._note(reason)
        head = f"HTTP/1.1 {status} \r\ncontent-length: {len(text) + 1}\r\nconnection: close"
        self.transport.write(f"{head}\r\nretry-after: 1\r\n\r\n{text}\n".encode())
        self.transport.close()


class WebSocketConnection(_Watched, WebSocketsSansIOProtocol):
    """A websocket, from its opening handshake on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._heard = self.opened

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._bound_unread()
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # uvicorn says nothing to a handshake with a body, and keeps it open.
            self.transport.write(b"HTTP/1.1 400 \r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()

    async def send(self, message: Any) -> None:
        await super().send(message)
        # uvicorn takes one that was turned away with a response for an application's mistake.
        self.handshake_complete |= self.initial_response is not None and self.close_sent

    def send_receive_event_to_app(self) -> None:
        super().send_receive_event_to_app()
        self._heard = self.loop.time()
        self._request_since = None

    def look(self, now: float) -> None:
        # What comes behind a message waits for this server, which answers one after the other.
        partial = bool(self.conn.reader.buffer or self.frames) and not self.read_paused
        if self.handshake_complete and not partial:
            self._request_since = None
        elif self._request_since is None:
            self._request_since = now
        super().look(now)
        if now - self._heard > self._limits.idle_s and not self.transport.is_closing():
            self._note("idle")
            self.shutdown()

    def is_stranger(self) -> bool:
        return not self.handshake_complete or self.close_sent

    def _is_stuck(self) -> bool:
        return not self.writable.is_set() or self.transport.is_closing()


def look_at_all(connections: Iterable[Any], now: float) -> None:
    """Ends those that have taken too long."""
    for connection in list(connections):
        connection.look(now)
