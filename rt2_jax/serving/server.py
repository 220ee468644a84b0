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
from typing import TYPE_CHECKING

import uvicorn

from rt2_jax.serving.app import PolicyApp
from rt2_jax.serving.requests import BatchPolicy

if TYPE_CHECKING:  # it needs `array_record`, which a server without a log does not
    from rt2_jax.serving.request_logger import RequestLogger

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
    """Serves one policy.

    Args:
      policy: compiled and warm: the port opens at once.
      host: address to bind to.
      port: 0 for any that is free; see `port` after the start.
      largest_batch: of requests answered together.
      token: that clients must show.
      log: what requests and answers are written to.
    """

    def __init__(
        self,
        policy: BatchPolicy,
        host: str = "127.0.0.1",
        port: int = 8000,
        largest_batch: int = 8,
        token: str | None = None,
        log: RequestLogger | None = None,
    ) -> None:
        self.policy_app = PolicyApp(policy, largest_batch, token, log)
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
        if self.policy_app.draining:  # asked twice
            super().handle_exit(sig, frame)
            return
        self.policy_app.draining = True
        self._drain_until = time.monotonic() + _DRAIN_S

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's: ten times a second; True to end."""
        if self.policy_app.draining and (
            self.policy_app.in_flight == 0 or time.monotonic() > self._drain_until
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
    policy: BatchPolicy,
    host: str = "127.0.0.1",
    port: int = 8000,
    largest_batch: int = 8,
    token: str | None = None,
    ready: Callable[[str], None] = lambda url: None,
    log: RequestLogger | None = None,
) -> None:
    """Serves until SIGTERM or Ctrl-C.

    Args:
      policy: compiled and warm.
      host: address to bind to.
      port: 0 for any that is free.
      largest_batch: of requests answered together.
      token: that clients must show.
      ready: is called with the URL when the port is open.
      log: what requests and answers are written to.

    Raises:
      OSError: the port cannot be bound.
    """
    server = PolicyServer(policy, host, port, largest_batch, token, log)

    def tell() -> None:
        while not server.started:
            time.sleep(0.01)
        ready(server.url)

    threading.Thread(target=tell, daemon=True).start()
    try:
        server.run()
    except SystemExit as error:  # uvicorn's, when it cannot start
        raise OSError(f"{host}:{port} cannot be bound; is another server there?") from error
