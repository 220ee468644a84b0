"""Policies by name for roll-outs and baselines. A learned policy is served, not named here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rt2_jax.actions.policy import Observation, Policy
from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.experts import ScriptedExpert
from rt2_jax.sim.simulation import TABLETOP_ACTIONS, TABLETOP_BOUNDS


class RandomPolicy:
    """Uniform over every field's bounds; goes on to the last step, which is its best chance."""

    def __init__(self, env: TabletopEnv) -> None:
        self.reset()

    def reset(self, session: str | None = None) -> None:
        """Seeds itself with the session's name, so that a session can be repeated."""
        entropy = list((session or "").encode())
        self._random = np.random.Generator(np.random.PCG64(entropy))

    def infer(self, observation: Observation) -> dict[str, Any]:
        """`actions`: float32 [1, 8]."""
        low, high = TABLETOP_BOUNDS.low, TABLETOP_BOUNDS.high
        actions = (low + self._random.random((1, len(low))) * (high - low)).astype(np.float32)
        actions[:, TABLETOP_ACTIONS.index("terminate")] = 1.0
        return {"actions": actions}


class DoNothing:
    """Never moves and never terminates."""

    def __init__(self, env: TabletopEnv) -> None:
        self._action = np.zeros((1, TABLETOP_ACTIONS.dimension), np.float32)
        self._action[0, TABLETOP_ACTIONS.index("terminate")] = 1.0

    def reset(self, session: str | None = None) -> None:
        """Nothing to forget."""

    def infer(self, observation: Observation) -> dict[str, Any]:
        """`actions`: float32 [1, 8]."""
        return {"actions": self._action.copy()}


POLICIES: Mapping[str, Callable[[TabletopEnv], Policy]] = {
    "expert": ScriptedExpert,
    "random": RandomPolicy,
    "do_nothing": DoNothing,
}


def make_policy(name: str, env: TabletopEnv) -> Policy:
    """The policy of that name for this environment; raises `ValueError` that lists them."""
    if name not in POLICIES:
        raise ValueError(f"policy: found {name!r}, expected one of {', '.join(POLICIES)}")
    return POLICIES[name](env)
