"""The web application: the robots' wires, and the pages that operators ask."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from rt2_jax.serving.gate import ASKED, Gate, is_known
from rt2_jax.serving.keys import Keys
from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.service import PolicyService
from rt2_jax.serving.status.routes import status_routes
from rt2_jax.serving.tasks import Policies
from rt2_jax.serving.wires import openpi, vla_eval
from rt2_jax.serving.wires.generate import Generate
from rt2_jax.serving.wires.openvla import Act

Converse = Callable[[WebSocket, PolicyService], Awaitable[None]]
Page = Callable[[Request], Awaitable[Response]]


class PolicyApp:
    """One policy, or one for each task, behind one application.

    Args:
      policy: compiled and warm.
      options: how it is served.

    Attributes:
      service: what answers.
      app: the ASGI application.
      keys: of clients; None where none is asked for.
    """

    def __init__(self, policy: Policies, options: ServerOptions | None = None) -> None:
        self._options = options = options or ServerOptions()
        self.keys = options.keys or (Keys.of_token(options.token) if options.token else None)
        self.service = PolicyService(policy, self._options)
        act, pages = Act(self.service), vla_eval.Pages(self.service)
        self.app = Starlette(
            routes=[
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metadata", self._metadata),
                Route("/metrics", self._metrics),
                Route("/act", act.get),
                Route("/act", self._guarded(act.post), methods=["POST"]),
                Route("/v1/generate", self._guarded(Generate(self.service).post), methods=["POST"]),
                Route("/health", pages.health),
                Route("/config", self._guarded(pages.config)),
                WebSocketRoute("/vla-eval", self._vla_eval),
                *status_routes(self.service, self._may),
                WebSocketRoute("/{path:path}", self._openpi),
            ],
            middleware=[Middleware(Gate, self.keys, self.service.limits, self.service.metrics)],
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
        return JSONResponse(self.service.tasks.metadata) if self._may(request) else _forbidden()

    async def _metrics(self, request: Request) -> Response:
        if not self._may(request):
            return _forbidden()
        return Response(self.service.metrics.text(), media_type="text/plain; version=0.0.4")

    async def _openpi(self, socket: WebSocket) -> None:
        await self._converse(socket, openpi.converse)

    async def _vla_eval(self, socket: WebSocket) -> None:
        await self._converse(socket, vla_eval.converse)

    async def _converse(self, socket: WebSocket, converse: Converse) -> None:
        if not self._may(socket) or self.service.draining:
            await socket.close()  # before it is accepted, this is status 403
            return
        await socket.accept()
        await converse(socket, self.service)

    def _guarded(self, page: Page) -> Page:
        """A page that asks for a token."""

        async def answer(request: Request) -> Response:
            return await page(request) if self._may(request) else _forbidden()

        return answer

    def _may(self, connection: HTTPConnection) -> bool:
        """`Authorization: Bearer TOKEN`, or `Api-Key TOKEN` as openpi's clients write it."""
        return is_known(connection.scope)


def make_app(policy: Policies, options: ServerOptions | None = None) -> Starlette:
    """The ASGI application of a policy, for a server of one's own.

    Limits of time, and of a websocket message's size, are the server's: see `docs/security.md`.
    """
    return PolicyApp(policy, options).app


def _forbidden() -> Response:
    return PlainTextResponse(f"{ASKED}\n", 401, {"www-authenticate": "Bearer"})
