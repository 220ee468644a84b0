"""How a training process ends: the exit statuses that launchers map, and the errors behind them."""

from __future__ import annotations

DONE = 0
FAILED = 1
"""A mistake in the program; its traceback was printed. Starting again gives the same."""
BAD_INPUT = 2
"""One line says what to change; nothing was lost. Starting again gives the same."""
NOT_FINITE = 3
"""The loss or the gradient stayed not finite; the latest checkpoint is whole."""
RETRYABLE = 75
"""Something outside the program: start all hosts again with the same command (`sysexits.h`:
EX_TEMPFAIL)."""
PREEMPTED = 143
"""Stopped by SIGTERM or a notice of preemption, and saved; start it again to go on."""


class RetryableError(Exception):
    """Nothing is wrong with the run: what was saved is whole, and it can be started again."""


class LostPeerError(RetryableError):
    """Another process of this run has ended, or cannot be reached."""
