"""Which weight of a checkpoint becomes which of a run's: T5X's assignment maps, and a report."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

AssignmentMap = Sequence[tuple[str, str | None]]
"""(regular expression of a weight of the run, its name in the checkpoint or None), as T5X's
`RestoreCheckpointConfig.assignment_map`: the expression matches the whole name, groups can be used
in the replacement (`\\\\1`), the first that matches wins, and None leaves the weight new."""


class HasShape(Protocol):
    """An array, or what stands for one."""

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What `assign` found; names are as `target/decoder/...` and `state/param_states/...`.

    Attributes:
      sources: weight of the run -> weight of the checkpoint, for those that are restored.
      left_new: weights that the map leaves new.
      missing: weight of the run -> the name that the checkpoint does not have.
      extra: weights of the checkpoint that nothing takes.
      mismatched: weight of the run -> (name in the checkpoint, shape there, shape wanted).
    """

    sources: Mapping[str, str]
    left_new: Sequence[str]
    missing: Mapping[str, str]
    extra: Sequence[str]
    mismatched: Mapping[str, tuple[str, tuple[int, ...], tuple[int, ...]]]

    @property
    def whole(self) -> bool:
        """Whether everything found its place, but for what the map leaves new."""
        return not (self.missing or self.extra or self.mismatched)

    def report(self) -> str:
        """Every weight that is not simply restored, a line each."""
        lines = [f"{len(self.sources)} weights are restored"]
        lines += [f"left new by the assignment map: {name}" for name in self.left_new]
        for name, wanted in self.missing.items():
            lines.append(f"missing: {name}" + (f", as {wanted}" if wanted != name else ""))
        for name, (source, found, expected) in self.mismatched.items():
            other = f" (there {source})" if source != name else ""
            lines.append(f"{name}{other}: found shape {found}, expected {expected}")
        lines += [f"not expected: {name}" for name in self.extra]
        return "\n  ".join(lines)


def assign(
    wanted: Mapping[str, HasShape], found: Mapping[str, HasShape], assignment_map: AssignmentMap
) -> Assignment:
    """Finds for every weight of a run its place in a checkpoint.

    Raises:
      ValueError: an entry of the map matches no weight of the run.
    """
    sources, left_new, missing, mismatched = {}, [], {}, {}
    unused = {pattern for pattern, _ in assignment_map}
    taken = set()
    for name, leaf in wanted.items():
        source: str | None = name
        for pattern, replacement in assignment_map:
            if match := re.fullmatch(pattern, name):
                unused.discard(pattern)
                source = None if replacement is None else match.expand(replacement)
                break
        if source is None:
            left_new.append(name)
            continue
        if source not in found:
            missing[name] = source
            continue
        taken.add(source)
        shape = tuple(found[source].shape)
        if shape == tuple(leaf.shape):
            sources[name] = source
        else:
            mismatched[name] = (source, shape, tuple(leaf.shape))
    if unused:
        raise ValueError(
            f"RunConfig.assignment_map: {', '.join(sorted(map(repr, unused)))} matches no weight "
            f"of this run; they are called as {', '.join(list(wanted)[:3])}, ..."
        )
    # A weight that stays new on purpose leaves its namesake in the checkpoint on purpose.
    extra = [name for name in found if name not in taken and name not in left_new]
    return Assignment(sources, left_new, missing, extra, mismatched)


def check_assignment_map(assignment_map: Any) -> None:
    """Refuses what is no assignment map.

    Raises:
      ValueError: an entry is no pair of a regular expression and a name or None.
    """
    for entry in assignment_map:
        pair = isinstance(entry, (tuple, list)) and len(entry) == 2
        if not pair or not isinstance(entry[0], str) or not isinstance(entry[1], (str, type(None))):
            raise ValueError(
                f"RunConfig.assignment_map: found {entry!r}, expected (regular expression of a "
                "weight of the run, name in the checkpoint or None)"
            )
        try:
            re.compile(entry[0])
        except re.error as error:
            raise ValueError(
                f"RunConfig.assignment_map: found {entry[0]!r}, expected a regular expression "
                f"({error})"
            ) from error
