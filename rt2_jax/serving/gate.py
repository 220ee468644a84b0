"""In front of every route: whose request it is, whether it may come in, and how large it may be."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import math
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rt2_jax.serving.busy import BusyError
from rt2_jax.serving.keys import Key, Keys
from rt2_jax.serving.limits import Limits
from rt2_jax.serving.metrics import Metrics
from rt2_jax.serving.outcomes import WORDS

_LOG = logging.getLogger("rt2_jax.serving")
KNOWN = "rt2_jax.known"
"""Key of a scope: set once its client has shown a key, or needs none."""
_MOST_VALUES = 1_000_000  # of JSON, which can become a hundred times its size in memory
ASKED = "a token is needed: Authorization: Bearer TOKEN"


@dataclass(frozen=True)
class Client:
    """Who sent what is being answered; `CLIENT` has it wherever a request is handled.

    Attributes:
      key: that it has shown; None where none is asked for.
      counted: the request was counted against the key's rate already.
    """

    key: Key | None = None
    counted: bool = False

    @property
    def name(self) -> str:
        """Of the key; "" without one."""
        return self.key.name if self.key else ""

    def count(self) -> None:
        """Counts a request against the key's rate.

        Raises:
          BusyError: there were more than its rate.
        """
        if self.key is None or self.counted:
            return
        if wait := self.key.take():
            raise BusyError(
                f"key {self.key.name!r} may ask {self.key.rate:g} times a second; ask again in "
                f"{wait:.2g} s",
                wait,
            )


_NOBODY = Client()
CLIENT: ContextVar[Client] = ContextVar("client", default=_NOBODY)


class Gate:
    """An ASGI application around another.

    What changes something or costs something needs a key, if there are any: websockets, and every
    method but GET and HEAD. Which pages need one, their routes decide with `is_known`.

    Args:
      app: what is behind.
      keys: None where none is asked for.
      limits: `body_bytes`, `connections_per_key`.
      metrics: is told who was turned away, and why.
    """

    def __init__(self, app: ASGIApp, keys: Keys | None, limits: Limits, metrics: Metrics) -> None:
        self._app = app
        self._keys = keys
        self._limits = limits
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if _is_foreign_page(headers, any_host=self._keys is not None):
            said = "a page of another site may not ask this server"
            await self._turn_away(scope, receive, send, 403, said, "origin")
            return
        key = self._key(headers)
        if self._keys is None or key is not None:
            scope[KNOWN] = True
        elif scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD"):
            status = 403 if scope["type"] == "websocket" else 401
            await self._turn_away(scope, receive, send, status, ASKED, "key")
            return
        with self._place(key) as free:
            if not free:
                said = f"{self._limits.connections_per_key} connections with this key are open"
                await self._turn_away(scope, receive, send, 429, said, "connections of the key")
            elif scope["type"] == "websocket":
                CLIENT.set(Client(key))
                await self._app(scope, _while_valid(key, receive, send), send)
            else:
                await self._http(scope, receive, send, key, headers)

    async def _http(
        self, scope: Scope, receive: Receive, send: Send, key: Key | None, headers: Headers
    ) -> None:
        if scope["method"] in ("GET", "HEAD"):
            CLIENT.set(Client(key))
            await self._app(scope, receive, send)
            return
        try:
            Client(key).count()
        except BusyError as error:
            again = {"retry-after": str(math.ceil(error.retry_s))}
            await self._turn_away(scope, receive, send, 429, str(error), "rate", again)
            return
        CLIENT.set(Client(key, counted=True))
        body = await self._body(receive, headers)
        if body is None:
            most = self._limits.body_bytes
            found = headers.get("content-length", "an unknown number of")[:20]
            said = (
                f"found a body of {found} bytes; it may have {most} (--limit body_bytes=N), and "
                f"{_MOST_VALUES} values if it is JSON"
            )
            await self._turn_away(scope, receive, send, 413, said, "size")
            return
        if body[-1]["type"] == "http.request":  # else the client has gone
            await self._app(scope, _replay(body, receive), send)

    async def _body(self, receive: Receive, headers: Headers) -> list[Message] | None:
        """The whole body, before anything looks at it; None if it is too large."""
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._limits.body_bytes:
            return None
        parts: list[Message] = []
        size = values = 0
        while True:
            part = await receive()
            parts.append(part)
            size += len(part.get("body", b""))
            values += sum(part.get("body", b"").count(mark) for mark in b",:[{")
            if size > self._limits.body_bytes or values > _MOST_VALUES:
                return None
            if part["type"] != "http.request" or not part.get("more_body"):
                return parts

    def _key(self, headers: Headers) -> Key | None:
        if self._keys is None:
            return None
        _, _, token = headers.get("authorization", "").partition(" ")
        return self._keys.find(token.strip())

    @contextlib.contextmanager
    def _place(self, key: Key | None) -> Iterator[bool]:
        """One of the connections of a key; False if all are taken."""
        if key is None or key.connections >= self._limits.connections_per_key:
            yield key is None
            return
        key.connections += 1
        try:
            yield True
        finally:
            key.connections -= 1

    async def _pass_over(self, receive: Receive) -> None:
        """Reads a body and keeps nothing: to who is still sending, an answer looks like a reset."""
        size = 0
        while size <= self._limits.body_bytes:
            part = await receive()
            size += len(part.get("body", b""))
            if part["type"] != "http.request" or not part.get("more_body"):
                return

    async def _turn_away(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        status: int,
        said: str,
        reason: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        self._metrics.turned_away(reason)
        if scope["type"] == "http":
            await self._pass_over(receive)
        _LOG.info("turned away %s: %s", (scope.get("client") or ("?",))[0], reason)
        headers = {"connection": "close", **(headers or {})}
        if status == 401:
            headers["www-authenticate"] = "Bearer"
        word = WORDS["busy" if status == 429 else "refused"]
        error = {"error": f"{word}: {said}"}  # as on the wires
        await JSONResponse(error, status, headers)(scope, receive, send)


def is_known(scope: Scope) -> bool:
    """Whether the client has shown a key, or needs none."""
    return scope.get(KNOWN, False)


def _is_foreign_page(headers: Headers, any_host: bool) -> bool:
    """Whether a browser asks for a page of another site: websockets know no same-origin policy.

    Robots send no `Origin`. Without keys the address in the browser must also be a number or
    localhost: a name may be any site's that was made to point here.
    """
    origin = headers.get("origin")
    if origin is None:
        return False
    try:
        page, host = urlsplit(origin), urlsplit(f"//{headers.get('host', '')}")
        if page.netloc.lower() != host.netloc.lower() or not host.hostname:
            return True
        if any_host or host.hostname == "localhost":
            return False
        ipaddress.ip_address(host.hostname)
    except ValueError:
        return True
    return False


def _while_valid(key: Key | None, receive: Receive, send: Send) -> Receive:
    """Ends a websocket whose key has been taken from the file."""

    async def next_message() -> Message:
        message = await receive()
        if key is not None and not key.valid and message["type"] == "websocket.receive":
            await send({"type": "websocket.close", "code": 1008, "reason": "the key has ended"})
            return {"type": "websocket.disconnect", "code": 1008}
        return message

    return next_message


def _replay(parts: list[Message], receive: Receive) -> Receive:
    left = iter(parts)

    async def next_message() -> Any:
        for part in left:
            return part
        return await receive()

    return next_message
