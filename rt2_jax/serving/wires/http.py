"""What the wires over HTTP share: bodies, sessions, status codes with a reason."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from rt2_jax.serving.exchange import Exchange
from rt2_jax.serving.service import PolicyService
from rt2_jax.serving.wires.errors import ENDING, STATUS, say, sentence

SESSION_HEADER = "x-rt2-session"
_LARGE = 16 * 2**10  # bytes of a body that are not parsed on the event loop
_LONGEST_NAME = 256
Parsed = TypeVar("Parsed")


class HttpError(Exception):
    """A request that is answered with a status and a reason.

    Attributes:
      status: HTTP's.
      outcome: of `errors.WORDS`.
    """

    def __init__(self, status: int, message: str, outcome: str = "refused") -> None:
        super().__init__(message)
        self.status = status
        self.outcome = outcome

    def response(self) -> JSONResponse:
        """The same as a response."""
        return error_response(self.status, sentence(self.outcome, str(self)))


def error_response(status: int, message: str, retry_s: float = 0.0) -> JSONResponse:
    """A status with its reason."""
    wait = retry_s or (1.0 if status in (429, ENDING) else 0.0)
    headers = {"retry-after": str(math.ceil(wait))} if wait else None
    return JSONResponse({"error": message}, status, headers)


def failure(exchange: Exchange, service: PolicyService) -> JSONResponse:
    """What is answered to a request that got no action."""
    status = STATUS.get(exchange.outcome, 500)
    if exchange.request is None and exchange.outcome == "refused" and service.draining:
        status = ENDING
    return error_response(status, say(exchange), exchange.retry_s)


async def read_body(
    request: Request, service: PolicyService, parse: Callable[[bytes], Parsed]
) -> Parsed:
    """A whole body, whatever its Content-Type says, parsed off the event loop if it is large.

    Args:
      request: of the client.
      service: says how large it may be.
      parse: makes something of the bytes; a ValueError says that it cannot.

    Raises:
      HttpError: 413, too large; 400, it cannot be parsed, or the client has gone.
    """
    most = service.limits.body_bytes
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise HttpError(413, f"body: found more than {most} bytes, expected at most these")
            parts.append(part)
    except ClientDisconnect as error:
        raise HttpError(400, "the client has gone") from error
    body = b"".join(parts)
    try:
        if size < _LARGE:
            return parse(body)
        return await asyncio.get_running_loop().run_in_executor(None, parse, body)
    except ValueError as error:
        raise HttpError(400, f"body: found {size} bytes that are no such JSON: {error}") from error


class Sessions:
    """Which session an HTTP request belongs to, and that it has only one under way.

    A session is named in the body (`session`) or in the header `X-RT2-Session`. A request without
    a name is an episode of its own: nothing is remembered of it, and any number may be under way.
    """

    def __init__(self, service: PolicyService) -> None:
        self._service = service
        self._busy: set[str] = set()
        self._nameless = itertools.count(1)

    @contextlib.contextmanager
    def enter(self, request: Request, body: dict[str, Any]) -> Iterator[tuple[str, bool]]:
        """The session's name while its request is under way, and whether the client named it.

        Raises:
          HttpError: 429, another request of it is under way; 422, no such name.
        """
        name = body.get("session") or request.headers.get(SESSION_HEADER)
        if name is None or name == "":
            yield f"http-{next(self._nameless)}", False
            return
        if not isinstance(name, (str, int)) or len(str(name)) > _LONGEST_NAME:
            raise HttpError(422, f"session: expected a name of at most {_LONGEST_NAME} characters")
        name = str(name)
        if name in self._busy:
            raise HttpError(
                429,
                f"session {name[:60]!r}: its last request is not answered yet; send one at a time, "
                "and give every robot a session of its own",
                "busy",
            )
        self._busy.add(name)
        try:
            yield name, True
        finally:
            self._busy.discard(name)

    async def forget(self, name: str) -> None:
        """Nothing more comes of a nameless request."""
        await self._service.forget(name)


async def guarded(answer: Callable[[], Any]) -> Response:
    """The response of `answer()`, or of the `HttpError` that it raises."""
    try:
        return await answer()
    except HttpError as error:
        return error.response()
