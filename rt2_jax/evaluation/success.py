"""How sure a success rate is, and whether two policies differ on the same scenes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from scipy import stats

CONFIDENCE = 0.95


def clopper_pearson(
    successes: int, trials: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The exact interval of a binomial rate (Clopper and Pearson, 1934, Biometrika 26, 404-413).

    It covers the true rate with at least this confidence, for every rate and number of trials.

    Returns:
      (low, high) in 0..1.

    Raises:
      ValueError: no trial, more successes than trials, or a confidence outside (0, 1).
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"found {successes} successes of {trials}, expected 0 to n of n >= 1")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: found {confidence}, expected a number between 0 and 1")
    tail, failures = (1 - confidence) / 2, trials - successes
    low = float(stats.beta.ppf(tail, successes, failures + 1)) if successes else 0.0
    high = float(stats.beta.ppf(1 - tail, successes + 1, failures)) if failures else 1.0
    return low, high


@dataclass(frozen=True)
class SuccessRate:
    """k successes in n trials, with the 95 % Clopper-Pearson interval.

    Raises:
      ValueError: no trial, or more successes than trials.
    """

    successes: int
    trials: int

    def __post_init__(self) -> None:
        clopper_pearson(self.successes, self.trials)

    @property
    def rate(self) -> float:
        """k/n."""
        return self.successes / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) in 0..1."""
        return clopper_pearson(self.successes, self.trials)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.successes}/{self.trials} = {self.rate:.1%} (95 % CI {low:.1%} to {high:.1%})"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        low, high = self.interval
        return {
            "successes": self.successes,
            "trials": self.trials,
            "rate": self.rate,
            "interval": [low, high],
            "confidence": CONFIDENCE,
        }


@dataclass(frozen=True)
class PairedComparison:
    """Two policies on the same scenes.

    Attributes:
      both: scenes in which both succeed.
      first_only: scenes in which only the first succeeds.
      second_only: scenes in which only the second succeeds.
      neither: scenes in which both fail.
    """

    both: int
    first_only: int
    second_only: int
    neither: int

    @property
    def p_value(self) -> float:
        """McNemar's exact test, two-sided: the scenes on which they differ against a fair coin.

        McNemar, 1947, Psychometrika 12, 153-157; exact binomial form.
        """
        differ = self.first_only + self.second_only
        return float(stats.binomtest(self.first_only, differ).pvalue) if differ else 1.0

    def __str__(self) -> str:
        return (
            f"both {self.both}, only the first {self.first_only}, only the second "
            f"{self.second_only}, neither {self.neither}: p = {self.p_value:.3g} (McNemar, exact)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "both": self.both,
            "first_only": self.first_only,
            "second_only": self.second_only,
            "neither": self.neither,
            "p_value": self.p_value,
        }


def compare(first: Mapping[Any, bool], second: Mapping[Any, bool]) -> PairedComparison:
    """Compares the successes of two policies, scene -> success.

    Raises:
      ValueError: no scene, or a scene that only one of them has played.
    """
    alone: set[Hashable] = set(first) ^ set(second)
    if alone or not first:
        some = ", ".join(sorted(map(str, alone))[:3]) or "none"
        raise ValueError(
            f"a paired comparison needs the same scenes: found {len(first)} and {len(second)}, "
            f"{len(alone)} of them played by one policy only ({some}); play both with equal skills,"
            " seed and episodes"
        )
    pairs = [(bool(first[scene]), bool(second[scene])) for scene in first]
    return PairedComparison(
        both=pairs.count((True, True)),
        first_only=pairs.count((True, False)),
        second_only=pairs.count((False, True)),
        neither=pairs.count((False, False)),
    )
