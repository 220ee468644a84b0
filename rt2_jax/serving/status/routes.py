"""The routes of the status page."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from rt2_jax import __version__
from rt2_jax.serving.gate import ASKED
from rt2_jax.serving.service import PolicyService
from rt2_jax.serving.status.live import LiveSession, LiveSessions
from rt2_jax.serving.status.thumbnails import thumbnail, whole_frame
from rt2_jax.serving.status.try_it import TryIt

_TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_HEADERS = {
    # Nothing but the page's own files; pictures also of what its scripts have fetched.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_FRESH_S = 0.4  # however many watch, what they see is made so often


def status_routes(service: PolicyService, may: Callable[[HTTPConnection], bool]) -> list[Route]:
    """The routes of the page; none if the options turn it off.

    The page's own files are for everybody: they hold nothing of the robots.

    Args:
      service: what is shown.
      may: whether a client has shown the key that it needs.
    """
    if service.live is None:
        return []
    return StatusPage(service, service.live, may).routes


class StatusPage:
    """The page's files, its numbers, its pictures and its form.

    Args:
      service: what is shown.
      live: its sessions.
      may: whether a client has shown the key that it needs.

    Attributes:
      routes: for the application.
    """

    def __init__(
        self, service: PolicyService, live: LiveSessions, may: Callable[[HTTPConnection], bool]
    ) -> None:
        self._service = service
        self._live = live
        self._may = may
        self._try_it = TryIt(service)
        self._began = time.time()
        self._files = {
            file.name: file.read_bytes()
            for file in resources.files("rt2_jax.serving.status").joinpath("page").iterdir()
            if file.name.rpartition(".")[2] in _TYPES
        }
        self._made: tuple[float, bytes] = (float("-inf"), b"")
        # One thread: the page gets what time the robots leave.
        self._thread = ThreadPoolExecutor(1, "status-page")
        self.routes = [
            Route("/", self._page),
            Route("/status", self._page),
            Route("/status.json", self._numbers),
            Route("/status/try", self._question, methods=["POST"]),
            Route("/status/frames/{session:int}/{view:path}", self._frame),
            Route("/status/{name}", self._file),
        ]

    async def _page(self, request: Request) -> Response:
        return self._send("index.html")

    async def _file(self, request: Request) -> Response:
        return self._send(request.path_params["name"])

    def _send(self, name: str) -> Response:
        if name not in self._files:
            return PlainTextResponse("there is no such page\n", 404, _HEADERS)
        return Response(self._files[name], 200, _HEADERS, _TYPES[name.rpartition(".")[2]])

    async def _numbers(self, request: Request) -> Response:
        if not self._may(request):
            return _refused()
        if self._live.now() - self._made[0] > _FRESH_S:
            sessions = self._live.sessions()
            loop = asyncio.get_running_loop()
            made = await loop.run_in_executor(self._thread, self._json, sessions)
            self._made = self._live.now(), made
        return Response(self._made[1], 200, _HEADERS, "application/json")

    def _json(self, sessions: list[LiveSession]) -> bytes:
        now, service = self._live.now(), self._service
        told = []
        for session in sessions:
            told.append(session.to_json(now))
            time.sleep(0)  # lets the event loop in, which would else wait for all of them
        return json.dumps(
            {
                "server": {
                    "version": __version__,
                    "schema_hash": service.schema.metadata["schema_hash"],
                    "began": self._began,
                    "up_s": round(time.time() - self._began, 1),
                    "draining": service.draining,
                    "working": service.working,
                    "in_flight": service.in_flight,
                    "connections": int(service.metrics.value("rt2_connections")),
                    "largest_batch": service.options.largest_batch,
                    "counts": dict(self._live.counts),
                },
                "traffic": self._live.traffic.summary(now),
                "sessions": told,
            },
            allow_nan=False,
        ).encode()

    async def _frame(self, request: Request) -> Response:
        if not self._may(request):
            return _refused()
        session = self._live.find(request.path_params["session"])
        frame = None if session is None else session.frames.get(request.path_params["view"])
        if frame is None:
            return PlainTextResponse("this frame is not kept any more\n", 404, _HEADERS)
        whole = "whole" in request.query_params
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(self._thread, whole_frame if whole else thumbnail, frame)
        return Response(data, 200, _HEADERS, "image/png" if whole else "image/jpeg")

    async def _question(self, request: Request) -> Response:
        if not self._may(request):
            return _refused()
        response = await self._try_it.answer(request)
        response.headers.update(_HEADERS)
        return response


def _refused() -> Response:
    return PlainTextResponse(f"{ASKED}\n", 401, {**_HEADERS, "www-authenticate": "Bearer"})
