"""A policy behind a URL."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from typing import Any, Dict, Optional

import numpy as np

from rt2_jax.actions.policy import Observation, check_policy_output
from rt2_jax.actions.space import ActionSpace
from rt2_jax.client.frames import DEADLINE, PROTOCOL_VERSION, pack, unpack

_LOG = logging.getLogger("rt2_jax.client")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_CLOSE_S = 0.5  # a server that does not answer does not say goodbye either


class PolicyServerError(RuntimeError):
    """The server refused a request and said why; nothing was decided, and it goes on serving."""


class DeadlineExceeded(PolicyServerError):
    """The answer could not be ready within `budget_ms`; there is none."""


class RemotePolicy:
    """A `Policy` whose answers come from a server, over openpi's websocket wire.

    It connects at once. When the connection is lost, `infer` raises `ConnectionError` and sends
    nothing again: only the robot's program knows whether an old observation may still be acted on.
    `reset`, which begins a new episode, connects again.

    Args:
      url: `ws://host:port` or `wss://...`.
      token: of a server that asks for one.
      timeout_s: how long to wait for an answer.
      patience_s: how long to go on trying to connect; 0 tries once.
      budget_ms: every answer must be ready within so many milliseconds of its request; None for
        any time.

    Attributes:
      metadata: what the server says of the policy: action space, units, control rate, hashes.
      action_space: of the answers.

    Raises:
      ConnectionError: no server answers, or it refuses the token.
      ValueError: it speaks another version of the protocol, or is no policy server.
    """

    def __init__(
        self,
        url: str,
        token: Optional[str] = None,
        timeout_s: float = 30.0,
        patience_s: float = 0.0,
        budget_ms: Optional[float] = None,
    ) -> None:
        if not url.startswith(("ws://", "wss://")):
            raise ValueError(f"url: found {url!r}, expected ws://host:port or wss://host:port")
        self.url = url
        self._token = token
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._budget_ms = budget_ms
        self._sequence = itertools.count()
        self._warned: set = set()
        self._socket: Any = None
        self._opened = contextlib.ExitStack()
        self.metadata: Dict[str, Any] = {}
        self._connect()

    def __enter__(self) -> RemotePolicy:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; nothing can be asked after it but `reset`."""
        self._socket = None
        self._opened.close()

    def reset(self, session: Optional[str] = None) -> None:
        """Begins an episode: the server forgets the session's frames. Connects if need be.

        Raises:
          ConnectionError: the server is away, for longer than `patience_s`.
        """
        if self._socket is None:
            self._connect()
        self._ask({"reset": session})

    def infer(self, observation: Observation) -> Dict[str, Any]:
        """Asks for the next actions.

        Returns:
          `actions`: float32 [K, D] in native units, checked against the server's action space;
          `server_timing` in milliseconds, `warnings`, and whatever else the policy reports.

        Raises:
          TypeError, ValueError: the observation is malformed; nothing was sent. Or the answer is no
            action.
          PolicyServerError: the server refused it. DeadlineExceeded: no answer within the budget.
          ConnectionError: the connection is lost; call `reset` to begin again.
          TimeoutError: no answer within `timeout_s`; the connection is closed.
        """
        observation.check()
        if self._socket is None:
            raise ConnectionError(f"{self.url}: not connected; call reset() to connect again")
        request: Dict[str, Any] = {
            "images": {name: np.ascontiguousarray(x) for name, x in observation.images.items()},
            "prompt": observation.instruction,
            "seq": next(self._sequence),
            "schema_hash": self.metadata["schema_hash"],
        }
        for name, value in (
            ("state", observation.state),
            ("instruction_embedding", observation.instruction_embedding),
            ("session", observation.session),
            ("step", observation.step),
            ("budget_ms", self._budget_ms),
        ):
            if value is not None:
                request[name] = value
        result = self._ask(request)
        if result.get("seq") != request["seq"]:
            self.close()
            raise ConnectionError(
                f"{self.url}: answered request {result.get('seq')!r}, expected "
                f"{request['seq']}; the connection is closed"
            )
        check_policy_output(self.action_space, result, self.url)
        for warning in result.get("warnings", ()):
            if warning not in self._warned:
                self._warned.add(warning)
                _LOG.warning("%s: %s", self.url, warning)
        return result

    def _ask(self, request: Dict[str, Any]) -> Dict[str, Any]:
        from websockets.exceptions import ConnectionClosed

        try:
            self._socket.send(pack(request))
            answer = self._socket.recv(timeout=self._timeout_s)
        except TimeoutError:
            self.close()
            raise TimeoutError(
                f"{self.url}: no answer within {self._timeout_s:g} s; the connection is closed, "
                "since a late answer would be taken for the next one"
            ) from None
        except (ConnectionClosed, OSError) as error:
            self.close()
            raise ConnectionError(
                f"{self.url}: the connection was lost ({error}); the request may or may not have "
                "been decided, and was not sent again; call reset() to connect again"
            ) from error
        if isinstance(answer, str):
            kind = DeadlineExceeded if answer.startswith(DEADLINE) else PolicyServerError
            raise kind(f"{self.url}: {answer}")
        return unpack(answer)

    def _connect(self) -> None:
        end, pause = time.monotonic() + self._patience_s, _FIRST_PAUSE_S
        while True:
            try:
                self._try_to_connect()
                return
            except (ConnectionError, TimeoutError) as error:
                left = end - time.monotonic()
                if left <= 0:
                    raise
                _LOG.warning("%s; trying again for %.0f s", error, left)
                time.sleep(min(pause, left))
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _try_to_connect(self) -> None:
        from websockets.exceptions import InvalidHandshake, WebSocketException
        from websockets.sync.client import connect

        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        opened = contextlib.ExitStack()
        try:
            socket = opened.enter_context(
                connect(
                    self.url,
                    additional_headers=headers,
                    compression=None,
                    max_size=None,
                    open_timeout=self._timeout_s,
                    close_timeout=_CLOSE_S,
                )
            )
        except InvalidHandshake as error:
            raise ConnectionError(f"{self.url}: the server refused: {_reason(error)}") from error
        except (OSError, TimeoutError, WebSocketException) as error:
            raise ConnectionError(f"{self.url}: no server answers ({error})") from error
        try:
            first = socket.recv(timeout=self._timeout_s)
        except Exception as error:
            opened.close()
            raise ConnectionError(f"{self.url}: the server said nothing ({error})") from error
        metadata = unpack(first) if isinstance(first, bytes) else None
        if not isinstance(metadata, dict) or "action_space" not in metadata:
            opened.close()
            raise ValueError(f"{self.url}: no server of this project: it names no action space")
        if metadata.get("protocol_version") != PROTOCOL_VERSION:
            opened.close()
            raise ValueError(
                f"{self.url}: speaks protocol version {metadata.get('protocol_version')!r}, this "
                f"client {PROTOCOL_VERSION}; install the client of the server's release"
            )
        if self.metadata and metadata != self.metadata:
            changed = sorted(k for k in metadata if metadata[k] != self.metadata.get(k))
            _LOG.warning("%s: serves another policy than before: %s", self.url, ", ".join(changed))
        self.metadata = metadata
        self.action_space = ActionSpace.from_json(metadata["action_space"])
        self._socket, self._opened = socket, opened


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"{status}, a token is needed, or another one"
    return str(error)
