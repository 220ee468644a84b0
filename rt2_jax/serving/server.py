"""A policy on a port: ready before it opens, finished before it closes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn

from rt2_jax.serving.app import PolicyApp
from rt2_jax.serving.connections import HTTPConnection, WebSocketConnection, look_at_all
from rt2_jax.serving.keys import Keys
from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.service import PolicyService
from rt2_jax.serving.tasks import Policies
from rt2_jax.serving.tls import Certificate

_DRAIN_S = 10.0
_LOG = logging.getLogger("rt2_jax.serving")


def check_address(host: str, keys: Keys | str | None, insecure: bool) -> None:
    """Refuses to let everybody on the network move the robot.

    Raises:
      ValueError: the address is not this machine's own and there are no keys.
    """
    if not is_own(host) and keys is None and not insecure:
        raise ValueError(
            f"host {host!r} can be reached from other machines, and whoever reaches it can ask for "
            "actions: give a --token-file, or --insecure on a network that is yours alone"
        )


def check_port(host: str, port: int) -> None:
    """Looks whether a port can be bound, long before it is.

    Args:
      host: address to bind to.
      port: 0 for any that is free.

    Raises:
      OSError: it cannot: it is taken, not allowed, or the address is not this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
                probe.listen(1)  # of two that may share an address only one may listen
    except OSError as error:
        raise OSError(f"{host}:{port} cannot be bound: {error}") from error


def is_own(host: str) -> bool:
    """Whether only this machine reaches an address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


class PolicyServer(uvicorn.Server):
    """Serves one policy, or one for each task by name.

    Args:
      policy: compiled and warm: the port opens at once.
      host: address to bind to.
      port: 0 for any that is free; see `port` after the start.
      options: how it is served.
    """

    def __init__(
        self,
        policy: Policies,
        host: str = "127.0.0.1",
        port: int = 8000,
        options: ServerOptions | None = None,
    ) -> None:
        options = options or ServerOptions()
        self.policy_app = PolicyApp(policy, options)
        limits = self._service.limits
        self._certificate = None
        if options.tls_cert is not None:
            self._certificate = Certificate(options.tls_cert, options.tls_key)
        self._reread = False
        watched = {"limits": limits, "metrics": self._service.metrics}
        super().__init__(
            uvicorn.Config(
                self.policy_app.app,
                host=host,
                port=port,
                log_level="error",  # its warnings are one a bad request
                http=functools.partial(HTTPConnection, **watched),  # type: ignore[arg-type]
                ws=functools.partial(WebSocketConnection, **watched),  # type: ignore[arg-type]
                ws_max_size=limits.frame_bytes,
                ws_ping_timeout=60,
                ws_per_message_deflate=False,  # pixels hardly shrink, and bombs do
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )

    @property
    def _service(self) -> PolicyService:
        return self.policy_app.service

    @property
    def port(self) -> int:
        """The bound port, once `started`."""
        return self.servers[0].sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """Where clients connect, once `started`."""
        host = self.config.host
        scheme = "ws" if self._certificate is None else "wss"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's, for which a TLS handshake may take a minute and a taken port is no `OSError`.

        Raises:
          OSError: the port cannot be bound.
        """
        await self.lifespan.startup()
        config = self.config
        connection: Callable[[], asyncio.Protocol] = functools.partial(
            config.http_protocol_class,
            config=config,  # type: ignore[call-arg]
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        tls: dict[str, Any] = {}
        if self._certificate is not None:
            tls["ssl"] = self._certificate.context
            tls["ssl_handshake_timeout"] = self._service.limits.request_s
        try:
            server = await asyncio.get_running_loop().create_server(
                connection, config.host, config.port, backlog=config.backlog, **tls
            )
        except OSError:
            await self.lifespan.shutdown()
            raise
        self.servers = [server]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's, and SIGHUP: keys and certificate are read again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGHUP, self._read_again)
        try:
            with super().capture_signals():
                yield
        finally:
            signal.signal(signal.SIGHUP, before)

    def _read_again(self, number: int, frame: FrameType | None) -> None:
        self._reread = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Takes nothing new, lets finish what is under way, then ends."""
        if self._service.draining:  # asked twice
            super().handle_exit(sig, frame)
            return
        self._service.draining = True
        self._drain_until = time.monotonic() + _DRAIN_S

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's: ten times a second; True to end."""
        if counter % 10 == 0 or self._reread:
            look_at_all(self.server_state.connections, asyncio.get_running_loop().time())
            self._read_keys()
        if self._service.draining and (
            self._service.in_flight == 0 or time.monotonic() > self._drain_until
        ):
            await asyncio.sleep(0.05)  # for answers that are on their way out
            return True
        return await super().on_tick(counter)

    def _read_keys(self) -> None:
        """Reads the keys if they have changed; on SIGHUP in any case, and the certificate too."""
        if self.policy_app.keys is not None:
            self.policy_app.keys.reread_if_changed(always=self._reread)
        if self._reread and self._certificate is not None:
            try:
                self._certificate.read()
                _LOG.warning("the certificate was read again")
            except ValueError as error:
                _LOG.error("the certificate stays as it was: %s", error)
        self._reread = False

    @contextlib.contextmanager
    def in_thread(self) -> Iterator[str]:
        """Serves in a thread, for programs that do other things too; the URL, once it serves.

        Raises:
          OSError: the port cannot be bound.
        """
        failed: list[BaseException] = []

        def work() -> None:
            try:
                self.run()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while not self.started:
            if not thread.is_alive():
                raise OSError(f"{self.config.host}:{self.config.port}: {failed}") from failed[0]
            time.sleep(0.01)
        try:
            yield self.url
        finally:
            self.handle_exit(signal.SIGTERM, None)
            thread.join()


def serve(
    policy: Policies,
    host: str = "127.0.0.1",
    port: int = 8000,
    options: ServerOptions | None = None,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serves until SIGTERM or Ctrl-C.

    Args:
      policy: compiled and warm.
      host: address to bind to.
      port: 0 for any that is free.
      options: how it is served.
      ready: is called with the URL when the port is open.

    Raises:
      OSError: the port cannot be bound.
    """
    server = PolicyServer(policy, host, port, options)

    def tell() -> None:
        while not server.started:
            time.sleep(0.01)
        ready(server.url)

    threading.Thread(target=tell, daemon=True).start()
    try:
        server.run()
    except OSError as error:
        raise OSError(
            f"{host}:{port} cannot be bound ({error}); is another server there?"
        ) from error
