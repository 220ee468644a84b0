"""When a run is to stop early: SIGTERM, or a notice of preemption, at the same step everywhere."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """A function (step) -> whether to stop before it, while this lasts.

    In one process SIGTERM asks for it. In several it is a notice to any of them, by default SIGTERM
    too: JAX's preemption service takes the signal (it looks once a second), and all processes hear
    of it and agree on a step that none has begun yet. Each must ask before every step.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    received = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: received.set())
    try:
        yield lambda step: received.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)
