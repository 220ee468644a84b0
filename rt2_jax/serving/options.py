"""How a policy is served; everything has a default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it needs `array_record`, which a server without a log does not
    from rt2_jax.serving.request_logger import RequestLogger


@dataclass(frozen=True)
class ServerOptions:
    """How a policy is served.

    Attributes:
      largest_batch: of requests answered together.
      token: that clients must show; None for none.
      log: what requests and answers are written to; it ends with the application.
      cameras: clients' names of cameras -> the policy's views, beside those that are known anyway.
      questions: whether a policy that can answer in words does so (`POST /v1/generate`).
    """

    largest_batch: int = 8
    token: str | None = None
    log: RequestLogger | None = None
    cameras: Mapping[str, str] = field(default_factory=dict)
    questions: bool = True
