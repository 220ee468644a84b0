"""What went wrong, in the same words on every wire."""

from __future__ import annotations

from rt2_jax.serving.exchange import Exchange
from rt2_jax.serving.outcomes import WORDS

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
    """What is said instead of an answer: a word for programs, and a sentence for people.

    `WORD (seq 7): reason`, without the number where the client gave none.
    """
    number = f" (seq {exchange.seq})" if isinstance(exchange.seq, int) else ""
    return f"{WORDS[exchange.outcome]}{number}: {exchange.error}"


def sentence(outcome: str, error: str) -> str:
    """As `say`, of what never was a request."""
    return f"{WORDS[outcome]}: {error}"
