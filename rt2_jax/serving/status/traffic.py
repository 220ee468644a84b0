"""How the last minute went: latencies, throughput, outcomes and batch sizes."""

from __future__ import annotations

from typing import Any

import numpy as np

from rt2_jax.serving.outcomes import WORDS

WINDOW_S = 60
_OUTCOMES = ("answered", *WORDS)
_PARTS = ("queue", "infer", "total")
# A tenth of a millisecond to ten seconds, six to a factor of ten.
_EDGES_MS = 10 ** (np.arange(-6, 25) / 6)
_END, _QUEUE, _BATCH, _OUTCOME = 0, 1, 4, 5  # columns; infer and total stand after queue


class Traffic:
    """The newest requests as rows of numbers, so that adding one costs a microsecond.

    Args:
      most: requests that are remembered; with more in a minute the window is shorter.
    """

    def __init__(self, most: int = 8192) -> None:
        self._rows = np.full((most, 6), np.nan)
        self._count = 0

    def add(
        self,
        end: float,
        outcome: str,
        queue_s: float = np.nan,
        infer_s: float = np.nan,
        total_s: float = np.nan,
        batch_size: int = 0,
    ) -> None:
        """Notes a request.

        Args:
          end: when it was over, by `time.perf_counter`.
          outcome: of `Exchange`.
          queue_s, infer_s, total_s, batch_size: NaN and 0 where it got no answer.
        """
        kind = _OUTCOMES.index(outcome) if outcome in _OUTCOMES else len(_OUTCOMES) - 1
        row = (end, queue_s, infer_s, total_s, batch_size, kind)
        self._rows[self._count % len(self._rows)] = row
        self._count += 1

    def summary(self, now: float) -> dict[str, Any]:
        """The last minute as plain JSON; on any thread.

        Args:
          now: by `time.perf_counter`.

        Returns:
          `window_s`, the seconds that the rest is about; `outcomes`, name -> requests;
          `per_second`, [60, 2]: answered and not answered, the oldest second first; `edges_ms` of
          the histograms; `latency`, part -> `histogram`, requests in each bin, and `p50`, `p95`,
          `p99` and `max` in milliseconds; `batches`, [size, count].
        """
        rows = self._rows[: self._count].copy()
        age = now - rows[:, _END]
        inside = age < WINDOW_S
        window_s = float(WINDOW_S)
        if len(rows) == len(self._rows) and inside.all():  # more than are remembered
            window_s = float(age.max())
        return {"window_s": window_s, **_summary(rows[inside], age[inside])}


def _summary(rows: np.ndarray, age: np.ndarray) -> dict[str, Any]:
    kinds = rows[:, _OUTCOME].astype(int)
    second = WINDOW_S - 1 - np.clip(age, 0, WINDOW_S - 1).astype(int)
    answered = rows[kinds == 0]
    columns = [second[kinds == 0], second[kinds != 0]]
    per_second = [np.bincount(column, minlength=WINDOW_S) for column in columns]
    sizes, counts = np.unique(answered[:, _BATCH].astype(int), return_counts=True)
    return {
        "outcomes": {name: int((kinds == kind).sum()) for kind, name in enumerate(_OUTCOMES)},
        "per_second": np.stack(per_second, 1).tolist(),
        "edges_ms": [round(float(edge), 4) for edge in _EDGES_MS],
        "latency": {
            part: _distribution(1000 * answered[:, _QUEUE + column])
            for column, part in enumerate(_PARTS)
        },
        "batches": [
            [int(size), max(1, round(count / size))]
            for size, count in zip(sizes.tolist(), counts.tolist(), strict=True)
            if size
        ],
    }


def _distribution(milliseconds: np.ndarray) -> dict[str, Any]:
    inside = np.clip(milliseconds, _EDGES_MS[0], _EDGES_MS[-1] * (1 - 1e-9))
    histogram = np.histogram(inside, _EDGES_MS)[0].tolist()
    if not len(milliseconds):
        return {"histogram": histogram, "p50": None, "p95": None, "p99": None, "max": None}
    values = [*np.percentile(milliseconds, (50, 95, 99)), milliseconds.max()]
    names = ("p50", "p95", "p99", "max")
    return {
        "histogram": histogram,
        **{name: round(float(value), 3) for name, value in zip(names, values, strict=True)},
    }
