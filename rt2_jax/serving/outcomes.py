"""Why a request got no answer: exceptions, the outcomes that they count as, and their words."""

from __future__ import annotations

from rt2_jax.serving.busy import BusyError

WORDS = {
    "refused": "REFUSED",
    "busy": "BUSY",
    "superseded": "SUPERSEDED",
    "late": "DEADLINE",
    "unsafe": "UNSAFE",
    "failed": "FAILED",
}
"""Outcome of a request without an answer -> the first word of what its client is told."""


class DeadlineError(TimeoutError):
    """The answer cannot be, or was not, ready within the request's budget."""


class SupersededError(RuntimeError):
    """A newer request of the session came before this one was begun."""


class PolicyError(RuntimeError):
    """The policy failed, or its answer is no action; the request was in order."""


class UnsafeActionError(RuntimeError):
    """The policy's answer is beyond the operator's limits, or the policy is not sure of it."""


def outcome_of(error: Exception) -> str:
    """One of `WORDS`."""
    for kind, outcome in (
        (BusyError, "busy"),
        (SupersededError, "superseded"),
        (DeadlineError, "late"),
        (UnsafeActionError, "unsafe"),
        ((KeyError, TypeError, ValueError), "refused"),
    ):
        if isinstance(error, kind):
            return outcome
    return "failed"
