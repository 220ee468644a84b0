"""Playing episodes: any policy, any scene of the table-top world, one step at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rt2_jax.actions.policy import Observation, Policy, check_policy_output
from rt2_jax.sim.env import TabletopEnv, to_observation
from rt2_jax.sim.simulation import TABLETOP_ACTIONS


@dataclasses.dataclass(frozen=True)
class Step:
    """One step: what was seen, what was done (float32 [8]), and what came of it."""

    observation: Observation
    action: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How an episode ended; one line of a results file."""

    skill: str
    seed: int
    instruction: str
    success: bool
    steps: int
    terminated: bool
    distance: float
    reason: str


def play(
    env: TabletopEnv,
    policy: Policy,
    seed: int,
    *,
    swap_instruction: bool = False,
    watch: Callable[[TabletopEnv], None] | None = None,
) -> Iterator[Step]:
    """Plays the scene of this seed to its end; a chunk of K actions is executed in order.

    `watch` is called with the environment after its reset and after every step.

    Raises:
      KeyError, TypeError, ValueError: the policy's answer is no action; nothing is executed.
    """
    observed, _ = env.reset(seed=seed, options={"swap_instruction": swap_instruction})
    session, step = f"{env.skill}-{seed}", 0
    policy.reset(session)
    if watch is not None:
        watch(env)
    while True:
        answer = policy.infer(to_observation(observed, session, step))
        for action in check_policy_output(
            TABLETOP_ACTIONS, answer, where=f"{session}, step {step}"
        ):
            before = to_observation(observed, session, step)
            observed, reward, terminated, truncated, info = env.step(action)
            if watch is not None:
                watch(env)
            yield Step(before, action, reward, terminated, truncated, info)
            if terminated or truncated:
                return
            step += 1


def outcome(env: TabletopEnv, steps: list[Step]) -> Outcome:
    """Sums up an episode that has been played to its end."""
    last = steps[-1]
    return Outcome(
        skill=env.skill,
        seed=env.scene.seed,
        instruction=last.observation.instruction,
        success=bool(last.reward),
        steps=len(steps),
        terminated=last.terminated,
        distance=last.info["distance"],
        reason=last.info["reason"],
    )
