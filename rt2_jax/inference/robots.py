"""All robots of a checkpoint as policies that share one engine."""

from __future__ import annotations

from rt2_jax.inference.engine import EnginePolicy, PolicyEngine


def robot_policies(engine: PolicyEngine, task: str | None = None) -> dict[str, EnginePolicy]:
    """A policy for each robot task of the checkpoint, by name.

    Tasks that differ in nothing but their names share a policy, so that their requests can be
    answered in one batch.

    Args:
      engine: of the checkpoint.
      task: the only one that is meant; None for all.

    Raises:
      KeyError: no such task. ValueError: the checkpoint has no robot.
    """
    tasks = engine.description.robot_tasks
    if task is not None or not tasks:
        tasks = (engine.robot_task(task),)
    policies: dict[str, EnginePolicy] = {}
    for each in tasks:
        policy = EnginePolicy(engine, each)
        alike = (other for other in policies.values() if _unnamed(other) == _unnamed(policy))
        policies[each.name] = next(alike, policy)
    return policies


def _unnamed(policy: EnginePolicy) -> dict[str, object]:
    return {**policy.metadata, "task": None}
