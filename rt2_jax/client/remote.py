"""A policy behind a URL."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import Any, Dict, Optional

from rt2_jax.actions.policy import Observation
from rt2_jax.actions.sampling import Sampling
from rt2_jax.client.conversation import Conversation, Patience, Pending


class RemotePolicy(Conversation):
    """A `Policy` whose answers come from a server, over openpi's websocket wire.

    It connects at once, and has one request in flight: a request that was given up for its budget
    is waited for before the next one is sent, within the budget of that one. It belongs to one
    thread at a time.

    The arguments are those of `Conversation`: `url`, `token`, `timeout_s`, `patience_s`,
    `budget_ms`, `reconnect`, `pictures`, `ca`.

    Raises:
      ConnectionError: no server answers, or it refuses the token.
      ValueError: it speaks another version of the protocol, or is no policy server.
    """

    def _begin(self) -> None:
        self._socket: Any = None
        self._opened = contextlib.ExitStack()
        self._connect(new_episode=True)

    def __enter__(self) -> RemotePolicy:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._socket = None
        self._forget(ConnectionError(f"{self.url}: closed"))
        self._opened.close()

    def reset(self, session: Optional[str] = None) -> None:
        """Begins an episode: the server forgets the session's frames. Connects if need be.

        Raises:
          ConnectionError: the server is away, for longer than `patience_s`.
        """
        if self._socket is None:
            self._connect(new_episode=True)
        self._ask(self._reset_of(session))

    def infer(
        self,
        observation: Observation,
        budget_ms: Optional[float] = None,
        sampling: Optional[Sampling] = None,
    ) -> Dict[str, Any]:
        """Asks for the next actions.

        Args:
          observation: what is seen now.
          budget_ms: of this request, instead of the client's.
          sampling: how to draw actions instead of taking the likeliest, where the server can;
            `samples` holds all of them, and `actions` is the first.

        Returns:
          `actions`: float32 [K, D] in native units, checked against the server's action space;
          `server_timing` in milliseconds, `warnings`, and whatever else the policy reports.

        Raises:
          TypeError, ValueError: the observation is malformed; nothing was sent. Or the answer is no
            action.
          PolicyServerError: the server refused it. DeadlineExceeded: no answer within the budget,
            by the server's clock or this one's. ServerBusy, RequestSuperseded: as they say.
          ConnectionError: the connection is lost; see `reconnect`.
          TimeoutError: no answer within `timeout_s`; the connection is closed.
        """
        pending = self._question(observation, budget_ms, sampling)
        if self._socket is None:
            if self.reconnect != "always":
                raise self._not_connected()
            self._connect(new_episode=False, end=pending.deadline)
        return self._ask(pending)

    def _ask(self, pending: Pending) -> Dict[str, Any]:
        from websockets.exceptions import ConnectionClosed

        end = time.monotonic() + self._timeout_s
        try:
            while self._sent and not pending.settled:
                self._receive(pending, end)
            if not pending.settled:
                self._socket.send(self._frame(pending))
            while not pending.settled:
                self._receive(pending, end)
        except TimeoutError:
            self.close()
            raise self._silent() from None
        except (ConnectionClosed, OSError) as error:
            lost = self._lost(error)
            self.close()
            raise lost from error
        return pending.outcome()

    def _receive(self, pending: Pending, end: float) -> None:
        """Takes one frame, of this request or of an earlier one that was given up."""
        now = time.monotonic()
        if now >= pending.deadline:
            self._give_up_late(pending)
            return
        try:
            frame = self._socket.recv(timeout=max(0.0, min(pending.deadline, end) - now))
        except TimeoutError:
            if pending.deadline >= end:
                raise
            self._give_up_late(pending)
            return
        self._received(frame)

    def _connect(self, new_episode: bool, end: float = float("inf")) -> None:
        patience = Patience(self._patience_s, end)
        while True:
            try:
                self._try_to_connect(new_episode, end)
                return
            except (ConnectionError, TimeoutError) as error:
                time.sleep(patience.after(error))

    def _try_to_connect(self, new_episode: bool, end: float) -> None:
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        arguments = self._connect_arguments()
        wait_s = max(0.01, min(self._timeout_s, end - time.monotonic()))
        arguments["open_timeout"] = wait_s
        opened = contextlib.ExitStack()
        try:
            connection = opened.enter_context(connect(self.url, **arguments))
        except (OSError, TimeoutError, WebSocketException) as error:
            raise self._no_connection(error) from error
        try:
            _limit_sending(connection.socket, self._timeout_s)
            first = connection.recv(timeout=wait_s)
        except Exception as error:
            opened.close()
            raise ConnectionError(f"{self.url}: the server said nothing ({error})") from error
        try:
            self._greeted(first, new_episode)
        except ValueError:
            opened.close()
            raise
        self._socket, self._opened = connection, opened


def _limit_sending(connection: socket.socket, seconds: float) -> None:
    """Sending fails too, instead of waiting for ever, when the other side stops reading."""
    with contextlib.suppress(AttributeError, OSError):  # systems without it
        limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
