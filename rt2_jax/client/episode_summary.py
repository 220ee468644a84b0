"""What a control loop needs of a robot, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Optional, Protocol, Sequence, Tuple

import numpy as np

from rt2_jax.actions.policy import Observation


class Robot(Protocol):
    """What `run_episode` drives; each call should return within a fraction of the period."""

    def observe(self) -> Optional[Observation]:
        """What is seen now; None when there is nothing new. `captured_at` counts for budgets."""

    def apply(self, action: np.ndarray) -> None:
        """Begins to execute one action, float32 [D], native units; returns without waiting."""

    def stop(self) -> None:
        """Brings the robot to a safe stand. Called once at the end, however it came."""


@dataclass(frozen=True)
class EpisodeSummary:
    """How an episode went.

    Attributes:
      reason: why it ended, one of `REASONS`.
      detail: the same in a sentence.
      ticks: periods of the control rate.
      missed: of them, begun late by more than a tenth of the period.
      held: of them, without an action.
      answers: chunks that came.
      unanswered: requests that were refused for time, or lost.
      outdated: answers that came after all of their actions were due.
      latency_ms_p50: of answers, from asking; NaN without any. `latency_ms_p95`, `latency_ms_p99`.
    """

    REASONS: ClassVar[Tuple[str, ...]] = (
        "terminate",
        "max_ticks",
        "stop_when",
        "no_action",
        "refused",
        "connection",
        "interrupted",
    )

    reason: str
    detail: str
    ticks: int
    missed: int
    held: int
    answers: int
    unanswered: int
    outdated: int
    latency_ms_p50: float
    latency_ms_p95: float
    latency_ms_p99: float

    @classmethod
    def of(cls, latencies_s: Sequence[float], **values: Any) -> EpisodeSummary:
        """A summary with the percentiles of these latencies."""
        found = [float("nan")] * 3
        if latencies_s:
            found = [float(1000 * each) for each in np.percentile(latencies_s, (50, 95, 99))]
        return cls(
            answers=len(latencies_s),
            latency_ms_p50=found[0],
            latency_ms_p95=found[1],
            latency_ms_p99=found[2],
            **values,
        )

    def describe(self) -> str:
        """A few lines for people."""
        return (
            f"ended: {self.reason} ({self.detail})\n"
            f"{self.ticks} ticks, {self.missed} missed, {self.held} without an action\n"
            f"{self.answers} answers, {self.unanswered} requests without, {self.outdated} too late "
            f"to use\nlatency {self.latency_ms_p50:.1f} ms (p50), {self.latency_ms_p95:.1f} (p95), "
            f"{self.latency_ms_p99:.1f} (p99)"
        )
