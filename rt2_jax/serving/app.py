"""The web application: the robots' wires, and the pages that operators ask."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.requests import BatchPolicy
from rt2_jax.serving.service import PolicyService
from rt2_jax.serving.wires import openpi


class PolicyApp:
    """One policy behind one application.

    Args:
      policy: compiled and warm.
      options: how it is served.

    Attributes:
      service: what answers.
      app: the ASGI application.
    """

    def __init__(self, policy: BatchPolicy, options: ServerOptions | None = None) -> None:
        self._options = options or ServerOptions()
        self.service = PolicyService(policy, self._options)
        self.app = Starlette(
            routes=[
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metadata", self._metadata),
                Route("/metrics", self._metrics),
                WebSocketRoute("/{path:path}", self._openpi),
            ],
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.service.start()
        yield
        await self.service.stop()

    async def _healthz(self, request: Request) -> Response:
        return PlainTextResponse("OK\n")

    async def _readyz(self, request: Request) -> Response:
        missing = self.service.missing()
        return PlainTextResponse(f"{missing or 'OK'}\n", status_code=503 if missing else 200)

    async def _metadata(self, request: Request) -> Response:
        return JSONResponse(self.service.schema.metadata) if self._may(request) else _forbidden()

    async def _metrics(self, request: Request) -> Response:
        if not self._may(request):
            return _forbidden()
        return Response(self.service.metrics.text(), media_type="text/plain; version=0.0.4")

    async def _openpi(self, socket: WebSocket) -> None:
        if not self._may(socket) or self.service.draining:
            await socket.close()  # before it is accepted, this is status 403
            return
        await socket.accept()
        await openpi.converse(socket, self.service)

    def _may(self, connection: HTTPConnection) -> bool:
        """`Authorization: Bearer TOKEN`, or `Api-Key TOKEN` as openpi's clients write it."""
        if self._options.token is None:
            return True
        _, _, shown = connection.headers.get("authorization", "").partition(" ")
        return hmac.compare_digest(shown.encode(), self._options.token.encode())


def make_app(policy: BatchPolicy, options: ServerOptions | None = None) -> Starlette:
    """The ASGI application of a policy, for a server of one's own."""
    return PolicyApp(policy, options).app


def _forbidden() -> Response:
    return PlainTextResponse("a token is needed: Authorization: Bearer TOKEN\n", status_code=401)
