"""How several answers to one observation are drawn, where somebody asks for that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Optional

import numpy as np

MOST_TOP_K = 256
"""Programs sort no more logits than these."""


@dataclass(frozen=True)
class Sampling:
    """Answers are drawn from what the model believes, instead of taken for the likeliest.

    Drawn are tokens, one after the other, among those that each place allows: a drawn action is an
    action. The same observation and the same numbers here give the same answers, in whatever batch;
    the first answers are those of a smaller `num_samples`.

    Attributes:
      temperature: 1 draws as the model believes, less makes likely tokens likelier, 0 is greedy.
      top_k: draws among the likeliest so many tokens; 0 among all.
      num_samples: how many answers.
      seed: another one draws others.

    Raises:
      TypeError, ValueError: a number out of its range; the message names it.
    """

    temperature: float = 1.0
    top_k: int = 0
    num_samples: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0, 100, whole=False)
        _check("top_k", self.top_k, 0, MOST_TOP_K)
        _check("num_samples", self.num_samples, 1, 1024)
        _check("seed", self.seed, 0, 2**32 - 1)

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> Optional[Sampling]:
        """What a request asks for; None where it has none of these fields, or only None in them.

        Raises:
          TypeError, ValueError: a number out of its range.
        """
        asked = {name: request[name] for name in SAMPLING_FIELDS if request.get(name) is not None}
        plain = {key: x.item() if isinstance(x, np.generic) else x for key, x in asked.items()}
        return cls(**plain) if plain else None


SAMPLING_FIELDS = tuple(field.name for field in fields(Sampling))
"""Names of the fields in requests."""


def _check(name: str, value: Any, least: int, most: int, whole: bool = True) -> None:
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(
            f"sampling: {name}: found {type(value).__name__} {value!r}, expected "
            f"{'an integer' if whole else 'a number'}"
        )
    if not least <= value <= most:
        raise ValueError(f"sampling: {name}: found {value!r}, expected {least} to {most}")
