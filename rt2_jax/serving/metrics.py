"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def make(kind: type, name: str, text: str, *labels: str, **options: object) -> object:
            return kind(name, text, labels, registry=self._registry, **options)

        self._requests: Counter = make(Counter, "rt2_requests", "by outcome", "outcome")  # type: ignore[assignment]
        self._latency: Histogram = make(  # type: ignore[assignment]
            Histogram, "rt2_latency_seconds", "from arrival to answer", buckets=_SECONDS
        )
        self._infer: Histogram = make(  # type: ignore[assignment]
            Histogram, "rt2_infer_seconds", "of a batch", buckets=_SECONDS
        )
        self._batch: Histogram = make(  # type: ignore[assignment]
            Histogram, "rt2_batch_size", "requests answered together", buckets=_SIZES
        )
        self._waiting: Gauge = make(Gauge, "rt2_requests_in_flight", "now")  # type: ignore[assignment]
        self._sessions: Gauge = make(Gauge, "rt2_connections", "now")  # type: ignore[assignment]
        self._logged: Counter = make(Counter, "rt2_log_records", "by outcome", "outcome")  # type: ignore[assignment]
        self._log_stopped: Gauge = make(  # type: ignore[assignment]
            Gauge, "rt2_log_stopped", "1 once the request log could not be written"
        )

    def outcome(self, outcome: str, seconds: float | None = None) -> None:
        """Counts a request: `answered`, `refused`, `late` or `failed`."""
        self._requests.labels(outcome).inc()
        if seconds is not None:
            self._latency.observe(seconds)

    def batch(self, size: int, seconds: float) -> None:
        """Counts a batch."""
        self._batch.observe(size)
        self._infer.observe(seconds)

    def waiting(self, count: int) -> None:
        """How many requests are in flight."""
        self._waiting.set(count)

    def connections(self, change: int) -> None:
        """A client came (1) or went (-1)."""
        self._sessions.inc(change)

    def logged(self, outcome: str) -> None:
        """Counts a request for the log: `written` or `dropped`."""
        self._logged.labels(outcome).inc()

    def log_stopped(self) -> None:
        """The request log has ended before the server."""
        self._log_stopped.set(1)

    def value(self, name: str) -> float:
        """Of a number without labels, `rt2_connections` say; 0 if there is none such."""
        return self._registry.get_sample_value(name) or 0.0

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)
