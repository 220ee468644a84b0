"""Policies by name for roll-outs and baselines. A learned policy is served, not named here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rt2_jax.actions.policy import Observation, Policy
from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.experts import ScriptedExpert
from rt2_jax.sim.simulation import TABLETOP_ACTIONS, TABLETOP_BOUNDS

LARGEST_NOISE = 0.05  # metres: the largest translation that one action can ask for
_TERMINATE = TABLETOP_ACTIONS.index("terminate")
_FIRST_DELTA = TABLETOP_ACTIONS.index("position_delta_x")


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
        actions[:, _TERMINATE] = 1.0
        return {"actions": actions}


class DoNothing:
    """Never moves and never terminates."""

    def __init__(self, env: TabletopEnv) -> None:
        self._action = np.zeros((1, TABLETOP_ACTIONS.dimension), np.float32)
        self._action[0, _TERMINATE] = 1.0

    def reset(self, session: str | None = None) -> None:
        """Nothing to forget."""

    def infer(self, observation: Observation) -> dict[str, Any]:
        """`actions`: float32 [1, 8]."""
        return {"actions": self._action.copy()}


class DisturbedPolicy:
    """Adds Gaussian noise to the translations of another policy, and keeps what that one asked for.

    The robot thus meets states beside the other policy's own path, with the right action for each
    (DART: Laskey et al., 2017, arXiv 1703.09327, section IV).

    Args:
      policy: the other policy.
      env: whose bounds cut the noisy actions.
      noise: standard deviation per axis, metres.
      rate: the part of the steps that is disturbed. A large disturbance now and then calls for
        actions that are plain to see; small ones all the time keep the expert from its goal.

    Raises:
      ValueError: the noise is negative or larger than `LARGEST_NOISE`, or the rate not in 0..1.
    """

    def __init__(self, policy: Policy, env: TabletopEnv, noise: float, rate: float = 1.0) -> None:
        if not 0 <= noise <= LARGEST_NOISE:
            raise ValueError(f"noise: found {noise} m, expected 0 to {LARGEST_NOISE} m")
        if not 0 <= rate <= 1:
            raise ValueError(f"noise_rate: found {rate}, expected 0 to 1")
        self._policy, self._noise, self._rate = policy, noise, rate
        self._low, self._high = env.action_space.low, env.action_space.high
        self.reset()

    def reset(self, session: str | None = None) -> None:
        """Begins the noise that belongs to this session."""
        self._policy.reset(session)
        self._random = np.random.Generator(np.random.PCG64(list(f"noise of {session}".encode())))
        self.asked: list[np.ndarray] = []

    def infer(self, observation: Observation) -> dict[str, Any]:
        """`actions`: float32 [K, 8], disturbed where they don't terminate."""
        answer = self._policy.infer(observation)
        self.asked += list(answer["actions"])
        actions = answer["actions"].copy()
        noise = self._random.normal(0.0, self._noise, (len(actions), 3))
        noise[self._random.random(len(actions)) >= self._rate] = 0
        noise[actions[:, _TERMINATE] == 0] = 0
        actions[:, _FIRST_DELTA : _FIRST_DELTA + 3] += noise
        return {**answer, "actions": np.clip(actions, self._low, self._high)}


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
