"""One policy on several hosts: the first one tells the others what all of them do next."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.experimental import multihost_utils

from rt2_jax.actions.policy import Observation
from rt2_jax.actions.sampling import Sampling
from rt2_jax.client.frames import pack, unpack
from rt2_jax.serving.requests import BatchPolicy
from rt2_jax.training.exits import DONE, RETRYABLE

_CHUNK = 256 * 1024  # bytes that are sent at once: of one size, so that nothing is compiled later
_LENGTH = 8
_QUIET_S = 1.0  # without requests, so often the hosts hear of each other
_LEAVE_S = 15.0  # after SIGTERM, for the leader to end what is under way


class LeadingPolicy:
    """The policy of the first host: whatever it does, all do. A `BatchPolicy`.

    When another host is lost, the process ends at once with the status `RETRYABLE`: no program of
    the model can end any more.

    Args:
      policy: over weights that are divided between the hosts.
    """

    def __init__(self, policy: BatchPolicy) -> None:
        self.metadata: Mapping[str, Any] = policy.metadata
        self._policy = policy
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._over = False
        threading.Thread(target=self._keep_in_touch, daemon=True, name="hosts").start()

    def reset(self, session: str | None = None) -> None:
        """Forgets a session, on all hosts."""
        with self._lock:
            self._tell({"do": "reset", "session": session})
            self._policy.reset(session)

    def infer_batch(
        self, observations: Sequence[Observation], *sampling: Sampling
    ) -> Sequence[Mapping[str, Any]]:
        """Answers observations, with all hosts."""
        names = [field.name for field in dataclasses.fields(Observation)]
        told = [{name: getattr(each, name) for name in names} for each in observations]
        how = [dataclasses.asdict(each) for each in sampling]
        with self._lock:
            self._tell({"do": "infer", "observations": told, "sampling": how})
            return self._policy.infer_batch(observations, *sampling)

    def end(self) -> None:
        """The others end, too."""
        with self._lock:
            self._over = True
            self._tell({"do": "end"})

    def _keep_in_touch(self) -> None:
        while not self._over:
            time.sleep(_QUIET_S / 4)
            with self._lock:
                if not self._over and time.monotonic() - self._last > _QUIET_S:
                    self._tell({"do": "wait"})

    def _tell(self, message: Mapping[str, Any]) -> None:
        data = pack(message)
        try:
            _broadcast(data)
        except Exception as error:  # JAX, XLA and gloo have no error in common
            _end_at_once(error)
        self._last = time.monotonic()


def follow(policy: BatchPolicy) -> int:
    """Does what the first host says, until it ends.

    SIGTERM is obeyed when the first host has had time to end, since it usually gets one too.

    Returns:
      The exit status: `DONE` if it ended in order. When it is lost, the process ends at once with
      `RETRYABLE`.
    """
    asked: list[float] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(time.monotonic()))
    while True:
        try:
            message = unpack(_broadcast(b""))
        except Exception as error:  # JAX, XLA and gloo have no error in common
            _end_at_once(error)
        if message["do"] == "end":
            return DONE
        if asked and time.monotonic() - asked[0] > _LEAVE_S:
            return RETRYABLE
        # What the policy refuses it refuses on all hosts, and the first one answers.
        with contextlib.suppress(KeyError, TypeError, ValueError):
            if message["do"] == "reset":
                policy.reset(message["session"])
            elif message["do"] == "infer":
                observations = [Observation(**each) for each in message["observations"]]
                how = [Sampling(**each) for each in message["sampling"]]
                policy.infer_batch(observations, *how)


def _broadcast(data: bytes) -> bytes:
    """What the first host gives, on all of them."""
    data = len(data).to_bytes(_LENGTH, "big") + data
    received = b""
    while True:
        chunk = np.zeros(_CHUNK, np.uint8)
        mine = np.frombuffer(data[len(received) : len(received) + _CHUNK], np.uint8)
        chunk[: len(mine)] = mine
        received += np.asarray(multihost_utils.broadcast_one_to_all(chunk)).tobytes()
        length = _LENGTH + int.from_bytes(received[:_LENGTH], "big")
        if len(received) >= length:
            return received[_LENGTH:length]


def _end_at_once(error: Exception) -> None:
    reason = " ".join(str(error).split())[:200]
    print(
        f"rt2 serve: error: another host of this server has ended or cannot be reached ({reason}); "
        "start all of them again",
        file=sys.stderr,
        flush=True,
    )
    os._exit(RETRYABLE)
