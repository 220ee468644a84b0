"""What the server counts, for Prometheus; `docs/batching.md` lists it.

No label holds a session, a connection or other words of a client, but for the names of inputs that
nobody reads: the first 32 of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)
_MOST_KEYS, _MOST_NAMES, _LONGEST_NAME = 200, 32, 64
_OTHER = "(other)"


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Iterable[float]) -> Histogram:
            return Histogram(name, text, registry=registry, buckets=tuple(buckets))

        self._requests = counter("rt2_requests", "by outcome", "outcome")
        self._latency = histogram("rt2_latency_seconds", "from arrival to outcome", _SECONDS)
        self._queue = histogram("rt2_queue_seconds", "from arrival to its batch", _SECONDS)
        self._infer = histogram("rt2_infer_seconds", "of a batch", _SECONDS)
        self._batch = histogram("rt2_batch_size", "requests answered together", _SIZES)
        self._waiting = gauge("rt2_requests_waiting", "for the model, now")
        self._in_flight = gauge("rt2_requests_in_flight", "waiting or being answered, now")
        self._missed = counter("rt2_missed_deadlines", "by what it was doing", "while")
        self._unread = counter("rt2_unread_inputs", "sent, and read by nobody", "name")
        self._low = counter("rt2_low_confidence", "answers below the least confidence")
        self._held_back = counter("rt2_held_back", "answers by field brought to a limit", "field")
        self._silent = gauge("rt2_model_silent", "1 while the model is given up")
        self._sessions = gauge("rt2_connections", "now")
        self._logged = counter("rt2_log_records", "by outcome", "outcome")
        self._log_stopped = gauge("rt2_log_stopped", "1 once the request log could not be written")
        self._texts = counter("rt2_text_requests", "questions in words, by outcome", "outcome")
        self._turned_away = counter(
            "rt2_turned_away", "requests and connections before they were read", "reason"
        )
        self._keys = counter("rt2_key_requests", "by key and outcome", "key", "outcome")
        self._key_names: set[str] = set()
        self._names: set[str] = set()

    def question(self, outcome: str) -> None:
        """Counts a question that was to be answered in words."""
        self._texts.labels(outcome).inc()

    def outcome(self, outcome: str, seconds: float | None = None) -> None:
        """Counts a request: `answered`, one of `outcomes.WORDS`, or `gone` with its client."""
        self._requests.labels(outcome).inc()
        if seconds is not None:
            self._latency.observe(seconds)

    def batch(self, size: int, seconds: float, waited_s: Iterable[float] = ()) -> None:
        """Counts a batch, and how long each of it waited."""
        self._batch.observe(size)
        self._infer.observe(seconds)
        for each in waited_s:
            self._queue.observe(each)

    def waiting(self, count: int, in_flight: int) -> None:
        """How many requests wait, and how many wait or are being answered."""
        self._waiting.set(count)
        self._in_flight.set(in_flight)

    def missed(self, doing: str) -> None:
        """Counts a request whose budget was over: `waiting`, or while the model was `answering`."""
        self._missed.labels(doing).inc()

    def unread(self, name: str) -> None:
        """Counts an input that nobody reads; its name is the client's."""
        name = name[:_LONGEST_NAME]
        if name not in self._names and len(self._names) >= _MOST_NAMES:
            name = _OTHER
        self._names.add(name)
        self._unread.labels(name).inc()

    def low_confidence(self) -> None:
        """Counts an answer of low confidence."""
        self._low.inc()

    def held_back(self, field: str) -> None:
        """Counts an answer with a field that was brought back to its limit."""
        self._held_back.labels(field).inc()

    def silent(self, silent: bool) -> None:
        """The model is given up, or speaks again."""
        self._silent.set(silent)

    def connections(self, change: int) -> None:
        """A client came (1) or went (-1)."""
        self._sessions.inc(change)

    def logged(self, outcome: str) -> None:
        """Counts a request for the log: `written` or `dropped`."""
        self._logged.labels(outcome).inc()

    def log_stopped(self) -> None:
        """The request log has ended before the server."""
        self._log_stopped.set(1)

    def turned_away(self, reason: str) -> None:
        """Counts what was not even read: without a key, too large, too slow, too many."""
        self._turned_away.labels(reason).inc()

    def key(self, name: str, outcome: str) -> None:
        """Counts a request of a key; a file that changes its names all the time has `other`."""
        if name in self._key_names or len(self._key_names) < _MOST_KEYS:
            self._key_names.add(name)
        else:
            name = _OTHER
        self._keys.labels(name, outcome).inc()

    def value(self, name: str) -> float:
        """Of a number without labels, `rt2_connections` say; 0 if there is none such."""
        return self._registry.get_sample_value(name) or 0.0

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)
