"""What went wrong, in the same words on every wire."""

from __future__ import annotations

from rt2_jax.client.frames import DEADLINE
from rt2_jax.serving.exchange import Exchange

WORDS = {"refused": "REFUSED", "busy": "BUSY", "late": DEADLINE, "failed": "FAILED"}
"""First word of a message, by outcome; others are their own in capitals."""
STATUS = {
    "answered": 200,
    "refused": 422,
    "busy": 429,
    "superseded": 409,
    "late": 504,
    "unsafe": 500,
    "failed": 500,
}
"""HTTP's, by outcome."""
ENDING = 503
"""HTTP's of a server that takes nothing new."""


def say(exchange: Exchange) -> str:
    """What is said instead of an answer: a word for programs, and a sentence for people."""
    return sentence(exchange.outcome, exchange.error)


def sentence(outcome: str, error: str) -> str:
    """As `say`, of what never was a request."""
    return f"{WORDS.get(outcome, outcome.upper())}: {error}"
