"""Keeping a control rate, and saying when it is missed."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Deque, Dict, Optional

_KEPT = 10_000  # periods, for the percentiles
_LOG = logging.getLogger("rt2_jax.client")


class ControlRate:
    """Ticks at a rate: `wait` sleeps until the next tick is due.

    A loop that is late starts its next period at once and from now: missed ticks are counted, never
    caught up, for a robot that acts twice as often for a while is no robot at a fixed rate.

    Args:
      rate_hz: of the action space, `metadata["control_rate_hz"]`.
      report_every_s: a warning says so often how many ticks were missed, if any were.

    Attributes:
      ticks: how many there were.
      missed: how many of them were late by more than a tenth of the period.

    Raises:
      ValueError: the rate is not positive.
    """

    def __init__(self, rate_hz: float, report_every_s: float = 5.0) -> None:
        if not rate_hz > 0:
            raise ValueError(f"rate_hz: found {rate_hz}, expected a positive number")
        self.period_s = 1.0 / rate_hz
        self.ticks = 0
        self.missed = 0
        self._report_every_s = report_every_s
        self._busy_s: Deque[float] = deque(maxlen=_KEPT)
        self._begin: Optional[float] = None
        self._reported = time.monotonic()
        self._missed_reported = 0

    def due(self) -> float:
        """When the next tick is due, on `time.monotonic`; the first call begins a period."""
        if self._begin is None:
            self._begin = time.monotonic()
        return self._begin + self.period_s

    def wait(self) -> bool:
        """Sleeps until the next tick.

        Returns:
          Whether the tick is on time.
        """
        due, now = self.due(), time.monotonic()
        self._busy_s.append(now - (due - self.period_s))
        late = now - due
        on_time = late <= 0.1 * self.period_s
        self.ticks += 1
        if on_time:
            if late < 0:
                time.sleep(-late)
            self._begin = due
        else:
            self.missed += 1
            self._begin = now
        self._report()
        return on_time

    def summary(self) -> Dict[str, float]:
        """`ticks`, `missed`, and what a period's work took: `busy_ms_p50`, `busy_ms_p95`."""
        busy = sorted(self._busy_s) or [0.0]
        return {
            "ticks": self.ticks,
            "missed": self.missed,
            "busy_ms_p50": 1000 * busy[len(busy) // 2],
            "busy_ms_p95": 1000 * busy[int(0.95 * (len(busy) - 1) + 0.5)],
        }

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._reported < self._report_every_s:
            return
        missed = self.missed - self._missed_reported
        if missed:
            _LOG.warning(
                "missed %d ticks of %.1f Hz in %.1f s; a period's work took %.0f ms (p95)",
                missed,
                1 / self.period_s,
                now - self._reported,
                self.summary()["busy_ms_p95"],
            )
        self._reported, self._missed_reported = now, self.missed
