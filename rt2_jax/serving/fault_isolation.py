"""A row of a batch that the policy fails at costs the others little time and no answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rt2_jax.actions.policy import Observation
from rt2_jax.actions.sampling import Sampling
from rt2_jax.serving.requests import BatchPolicy


def answer_rows(
    policy: BatchPolicy, observations: Sequence[Observation], sampling: Sampling | None = None
) -> tuple[list[Any], bool]:
    """A result or an exception for each observation.

    A batch that fails is halved until the rows at fault are alone: at most `4 log2(B)` more
    batches, which is enough for any two rows of B. Rows that are in a failing part after that get
    its exception.

    Returns:
      B results, and whether all came of one batch.
    """
    results: list[Any] = [None] * len(observations)
    # Halves yet to be answered, the last first; rows are (first, behind the last).
    parts = [(0, len(observations))]
    left = 1 + 4 * (len(observations) - 1).bit_length()
    whole = True
    error: Exception = RuntimeError("never asked")
    while parts:
        first, end = parts.pop()
        if left:
            left -= 1
            try:
                results[first:end] = _answer(policy, observations[first:end], sampling)
                continue
            except Exception as raised:
                error, whole = raised, False
        if end - first == 1 or not left:
            results[first:end] = [error] * (end - first)
        else:
            middle = (first + end) // 2
            parts += [(middle, end), (first, middle)]
    return results, whole


def _answer(
    policy: BatchPolicy, observations: Sequence[Observation], sampling: Sampling | None
) -> list[Any]:
    how = () if sampling is None else (sampling,)
    results = list(policy.infer_batch(observations, *how))
    if len(results) != len(observations):
        raise RuntimeError(
            f"the policy gave {len(results)} answers to {len(observations)} observations"
        )
    return results
