"""How a policy is served; everything has a default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rt2_jax.serving.health import Health

if TYPE_CHECKING:  # it needs `array_record`, which a server without a log does not
    from rt2_jax.serving.request_logger import RequestLogger


@dataclass(frozen=True)
class ServerOptions:
    """How a policy is served.

    Attributes:
      largest_batch: of requests answered together.
      token: that clients must show; None for none.
      log: what requests and answers are written to; it ends with the application.
      health: what probes on a port of their own are told; see `health_port`.
    """

    largest_batch: int = 8
    token: str | None = None
    log: RequestLogger | None = None
    health: Health | None = None
