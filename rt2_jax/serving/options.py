"""How a policy is served; everything has a default."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rt2_jax.serving.action_checks import Safety
from rt2_jax.serving.health import Health
from rt2_jax.serving.keys import Keys
from rt2_jax.serving.limits import Limits

if TYPE_CHECKING:  # it needs `array_record`, which a server without a log does not
    from rt2_jax.serving.request_logger import RequestLogger, TaskLogs


@dataclass(frozen=True)
class ServerOptions:
    """How a policy is served.

    Attributes:
      largest_batch: of requests answered together.
      token: that clients must show; None for none.
      log: what requests and answers are written to; it ends with the application.
      keys: of which clients must show one; `token` stands for a single one.
      limits: of size and time; None for those that follow from the policy.
      tls_cert, tls_key: PEM files of the certificate, with its chain, and of its key.
      debug_errors: whether clients are told the traceback of a policy that failed.
      cameras: clients' names of cameras -> the policy's views, beside those that are known anyway.
      questions: whether a policy that can answer in words does so (`POST /v1/generate`).
      max_queue: requests that may wait; None for two seconds of work as it is measured.
      max_wait_s: how long a batch may wait for robots that are expected; None for as long as that
        pays by the measured times, 0 for never.
      model_timeout_s: after which a silent model is given up and `/readyz` says so; None for never.
      safety: limits of actions beyond their space's bounds.
      status: whether there is a status page.
      health: what probes on a port of their own are told; see `health_port`.
    """

    largest_batch: int = 8
    token: str | None = None
    log: RequestLogger | TaskLogs | None = None
    keys: Keys | None = None
    limits: Limits | None = None
    tls_cert: pathlib.Path | None = None
    tls_key: pathlib.Path | None = None
    debug_errors: bool = False
    cameras: Mapping[str, str] = field(default_factory=dict)
    questions: bool = True
    max_queue: int | None = None
    max_wait_s: float | None = None
    model_timeout_s: float | None = 60.0
    safety: Safety = Safety()
    status: bool = True
    health: Health | None = None

    def __post_init__(self) -> None:
        if self.max_queue is not None and self.max_queue < self.largest_batch:
            raise ValueError(
                f"max_queue: found {self.max_queue}, expected room for at least one batch of "
                f"{self.largest_batch}"
            )
        for name in ("max_wait_s", "model_timeout_s"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name}: found {value}, expected seconds from 0")
