"""Parameters that training leaves as they are, chosen by regular expressions over their paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from rt2_jax.training.parameter_names import matching


def frozen_names(params: Mapping[str, Any], patterns: Sequence[str]) -> frozenset[str]:
    """The paths, `vision/norm/scale`, that one of the patterns matches as a whole.

    Args:
      params: the tree, of arrays or of shapes.
      patterns: regular expressions.

    Raises:
      ValueError: a pattern is none, or matches nothing, or nothing is left to train.
    """
    names = list(flatten_dict(params, sep="/"))
    found: set[str] = set()
    for pattern in patterns:
        found.update(matching(pattern, names, "RunConfig.frozen"))
    if patterns and len(found) == len(names):
        raise ValueError(
            f"RunConfig.frozen: {tuple(patterns)} match all {len(names)} parameters; nothing would "
            "train"
        )
    return frozenset(found)


def split_frozen(
    params: Mapping[str, Any], frozen: frozenset[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The trees of what trains and of what is frozen, each without the other's leaves."""
    flat = flatten_dict(params, sep="/")
    trained = {name: leaf for name, leaf in flat.items() if name not in frozen}
    kept = {name: leaf for name, leaf in flat.items() if name in frozen}
    return unflatten_dict(trained, sep="/"), unflatten_dict(kept, sep="/")


def join_frozen(trained: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of both."""
    return unflatten_dict({**flatten_dict(trained), **flatten_dict(kept)})


def check_same_frozen(
    found: Mapping[str, Any], expected: Mapping[str, Any], frozen: frozenset[str], where: str
) -> None:
    """Refuses the optimizer's state of a run that trained other parameters.

    Args:
      found: the optimizer's state in a checkpoint, as nested dictionaries.
      expected: this run's.
      frozen: of this run.
      where: what errors call the checkpoint.

    Raises:
      ValueError: it names the parameters.
    """
    theirs, ours = (set(flatten_dict(state, sep="/")) for state in (found, expected))
    # What this run holds of a frozen parameter is nothing, so whatever is too much there tells.
    here = sorted(
        name for name in frozen if any(f"/{name}/" in f"/{key}/" for key in theirs - ours)
    )
    missing = sorted(ours - theirs)
    lines = [f"trained there, frozen here: {_some(here)}"] if here else []
    if missing and (here or theirs < ours):
        lines.append(f"without state there, trained here: {_some(missing)}")
    if lines:
        raise ValueError(
            f"{where} was trained with other parameters frozen:\n  " + "\n  ".join(lines) + "\n"
            "go on with the RunConfig.frozen of that run, or give this run a directory of its own "
            "and that checkpoint as INITIAL_CHECKPOINT_PATH: its optimizer then begins anew"
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more
