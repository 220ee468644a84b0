"""What a check found: how bad it is, where it is, and what to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

SEVERITIES = ("error", "warning")


class Place(NamedTuple):
    """A step of a split: where something was seen first."""

    episode: int
    episode_id: str
    step: int


@dataclass(frozen=True)
class Finding:
    """One thing to look at.

    Attributes:
      severity: "error" for what makes a policy wrong or an evaluation a lie, "warning" for what a
        data engineer should know and may accept.
      check: the name of the check, for programs.
      field: of the step, e.g. "action position_delta_x", "state x", "view front"; "" for none.
      found: what was found.
      advice: what to change.
      split: of the task, or of the raw data set ("" for all).
      place: where it was seen first; None where it is about the whole split.
    """

    severity: str
    check: str
    field: str
    found: str
    advice: str
    split: str = ""
    place: Place | None = None

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(f"severity: found {self.severity!r}, expected one of {SEVERITIES}")

    def describe(self) -> str:
        """Two lines for people."""
        where = [f"split {self.split}"] if self.split else []
        if self.place is not None:
            where.append(f"episode {self.place.episode} ({self.place.episode_id})")
            where.append(f"step {self.place.step}")
        head = f"{self.severity}: {self.check}" + (f": {self.field}" if self.field else "")
        found = f"{self.found} ({', '.join(where)})" if where else self.found
        return f"{head}: {found}\n  {self.advice}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "place": self.place._asdict() if self.place else None}


def findings_table(findings: Sequence[Finding]) -> str:
    """All findings, errors first, and how many there are."""
    ordered = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    counts = [f"{sum(f.severity == s for f in findings)} {s}s" for s in SEVERITIES]
    return "\n".join([*(finding.describe() for finding in ordered), ", ".join(counts)])
