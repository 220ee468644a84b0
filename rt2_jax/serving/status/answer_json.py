"""A policy's answer as the page shows it: plain JSON, and never much of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from rt2_jax.serving.batching import Answer

_TEXT = 600  # characters
_WARNINGS = 8
_STEPS = 16  # of an action chunk
_TOKENS = 64


def short_text(value: Any, most: int = _TEXT) -> str:
    """Text as it is, cut; of anything else the name of its type."""
    text = value if isinstance(value, str) else type(value).__name__
    return text if len(text) <= most else f"{text[: most - 1]}…"


def short_list(texts: Iterable[str]) -> list[str]:
    """The first texts, each cut."""
    return [short_text(text) for text, _ in zip(texts, range(_WARNINGS), strict=False)]


def answer_json(answer: Answer) -> dict[str, Any]:
    """What an answer says.

    Returns:
      `actions` [K, D] in native units, `horizon` K, `tokens`, `levels` [K, D], `token_count`,
      `plan`, `score`, `confidence` (the geometric mean of the tokens' probabilities, 0 to 1),
      `queue_ms`, `infer_ms` and `batch_size`. Chunks and tokens are cut; what the policy does not
      tell is absent.
    """
    result = answer.result
    actions = result["actions"]
    data: dict[str, Any] = {
        "actions": [[_number(value) for value in step] for step in actions[:_STEPS].tolist()],
        "horizon": len(actions),
        "queue_ms": _number(1000 * answer.queue_s),
        "infer_ms": _number(1000 * answer.infer_s),
        "batch_size": answer.batch_size,
    }
    if plan := result.get("plan"):
        data["plan"] = short_text(plan)
    tokens, levels = result.get("tokens"), result.get("levels")
    if tokens is not None:
        data["tokens"] = [int(token) for token in np.ravel(tokens)[:_TOKENS]]
        data["token_count"] = int(np.size(tokens))
    if levels is not None:
        data["levels"] = np.asarray(levels)[:_STEPS].tolist()
    score = result.get("score")
    if isinstance(score, (int, float, np.floating)) and math.isfinite(score):
        data["score"] = _number(float(score))
        if data.get("token_count") and score <= 0:
            data["confidence"] = _number(math.exp(float(score) / data["token_count"]))
    return data


def _number(value: float) -> float | None:
    """Six significant digits; None where JSON has no number."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
