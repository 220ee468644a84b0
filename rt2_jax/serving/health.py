"""A port of its own for probes: it answers from the first second of a start on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_SLOWEST_S = 5.0  # for a probe to say what it wants


class Health:
    """What probes are told; set from any thread.

    Attributes:
      doing: what is done before requests can be answered, in words; "" once they can.
      ready: asked once `doing` is "": why no request is answered after all, "" if they are.
    """

    def __init__(self) -> None:
        self.doing = "starting"
        self.ready: Callable[[], str] = lambda: ""

    def missing(self) -> str:
        """Why the server isn't ready; "" if it is."""
        return self.doing or self.ready()


@contextlib.contextmanager
def health_port(host: str, port: int, health: Health) -> Iterator[int]:
    """Answers `GET /healthz` with 200, and `GET /readyz` with 200 or 503 and the reason.

    Robots' clients wait for the server's port to open, and a client that was told 503 would give
    up: so that port stays closed until the first request can be answered, and probes have this one.

    Args:
      host: address to bind to.
      port: 0 for any that is free.
      health: what is told.

    Yields:
      The port.

    Raises:
      OSError: the port cannot be bound.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = _SLOWEST_S

        def do_GET(self) -> None:
            missing = health.missing() if self.path == "/readyz" else ""
            if self.path not in ("/healthz", "/readyz"):
                self.answer(HTTPStatus.NOT_FOUND, "there are /healthz and /readyz")
            elif missing:
                self.answer(HTTPStatus.SERVICE_UNAVAILABLE, missing)
            else:
                self.answer(HTTPStatus.OK, "OK")

        def answer(self, status: HTTPStatus, text: str) -> None:
            body = f"{text}\n".encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes come every few seconds; nobody wants to read of them."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise OSError(f"{host}:{port}, for probes, cannot be bound: {error}") from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True, name="health")
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
