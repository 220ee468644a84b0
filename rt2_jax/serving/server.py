"""A policy on a port: ready before it opens, finished before it closes."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from rt2_jax.serving.app import PolicyApp
from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.service import PolicyService
from rt2_jax.serving.tasks import Policies

_DRAIN_S = 10.0


def check_address(host: str, token: str | None, insecure: bool) -> None:
    """Refuses to let everybody on the network move the robot.

    Raises:
      ValueError: the address is not this machine's own and there is no token.
    """
    own = host == "localhost"
    with contextlib.suppress(ValueError):
        own = own or ipaddress.ip_address(host).is_loopback
    if not own and token is None and not insecure:
        raise ValueError(
            f"host {host!r} can be reached from other machines, and whoever reaches it can ask for "
            "actions: give a --token-file, or --insecure on a network that is yours alone"
        )


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
        self.policy_app = PolicyApp(policy, options)
        super().__init__(
            uvicorn.Config(
                self.policy_app.app,
                host=host,
                port=port,
                log_level="warning",
                ws="websockets-sansio",
                ws_max_size=64 * 2**20,
                ws_per_message_deflate=False,
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
        return f"ws://{f'[{host}]' if ':' in host else host}:{self.port}"

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Takes nothing new, lets finish what is under way, then ends."""
        if self._service.draining:  # asked twice
            super().handle_exit(sig, frame)
            return
        self._service.draining = True
        self._drain_until = time.monotonic() + _DRAIN_S

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's: ten times a second; True to end."""
        if self._service.draining and (
            self._service.in_flight == 0 or time.monotonic() > self._drain_until
        ):
            await asyncio.sleep(0.05)  # for answers that are on their way out
            return True
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def in_thread(self) -> Iterator[str]:
        """Serves in a thread, for programs that do other things too; the URL, once it serves.

        Raises:
          OSError: the port cannot be bound.
        """
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        while not self.started:
            if not thread.is_alive():
                raise OSError(f"{self.config.host}:{self.config.port} cannot be bound")
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
    except SystemExit as error:  # uvicorn's, when it cannot start
        raise OSError(f"{host}:{port} cannot be bound; is another server there?") from error
