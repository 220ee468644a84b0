"""The robot tasks of a server, and which of them a request means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from rt2_jax.serving.action_checks import ActionChecks, Safety
from rt2_jax.serving.limits import Limits
from rt2_jax.serving.requests import BatchPolicy, Schema
from rt2_jax.serving.step_times import StepTimes, powers_of_two

Policies = BatchPolicy | Mapping[str, BatchPolicy]
"""What is served: one policy, or one for each task by name."""

# What the metadata of a server of several tasks says beside them, where they agree.
_OF_ALL = (
    "code_version",
    "checkpoint",
    "weights",
    "mixture",
    "mixture_hash",
    "vocabulary_hash",
    "batch_sizes",
    "protocol_version",
)


@dataclass(eq=False)
class ServedTask:
    """One policy, and what its requests and answers are checked against.

    Attributes:
      policy: answers; batches hold requests of one.
      schema: of the requests.
      checks: of the answers.
      times: of its batches.
    """

    policy: BatchPolicy
    schema: Schema
    checks: ActionChecks
    times: StepTimes


class TaskTable:
    """All tasks of a server.

    Names may share a policy; a choice between such is none.

    Args:
      policies: what is served.
      safety: of the operator, for all.
      largest_batch: of policies that do not say their `batch_sizes`.
      cameras: clients' names of cameras -> the policy's views.

    Attributes:
      served: one for each policy.
      metadata: what clients are told that have not chosen: the policy's; with several, `tasks`,
        name -> its policy's, and what is the same for all.

    Raises:
      ValueError: no policy. KeyError, ValueError: limits that do not fit a policy's action space.
    """

    def __init__(
        self,
        policies: Policies,
        safety: Safety,
        largest_batch: int,
        cameras: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        if not isinstance(policies, Mapping):
            policies = {str(policies.metadata.get("task", "")): policies}
        if not policies:
            raise ValueError("found no policy to serve, expected one or more")
        of_policy: dict[int, ServedTask] = {}
        self._named: dict[str, ServedTask] = {}
        for name, policy in policies.items():
            if id(policy) not in of_policy:
                names = [other for other, each in policies.items() if each is policy]
                sizes = policy.metadata.get("batch_sizes") or powers_of_two(largest_batch)
                of_policy[id(policy)] = ServedTask(
                    policy,
                    Schema(policy.metadata, cameras, names),
                    ActionChecks(policy.metadata, safety),
                    StepTimes(sizes),
                )
            self._named[name] = of_policy[id(policy)]
        self.served = tuple(of_policy.values())
        self.metadata = self.served[0].schema.metadata if len(self.served) == 1 else self._all()

    @property
    def limits(self) -> Limits:
        """Of what clients may send: those of the policy that looks at most."""
        return Limits.of_policies(each.schema.metadata for each in self.served)

    def _all(self) -> dict[str, Any]:
        tasks = {name: each.schema.metadata for name, each in self._named.items()}
        first = self.served[0].schema.metadata
        shared = {
            key: first[key]
            for key in _OF_ALL
            if key in first and all(each.get(key) == first[key] for each in tasks.values())
        }
        return {**shared, "tasks": tasks}

    def choose(self, named: Any, otherwise: ServedTask | None = None) -> ServedTask:
        """The task that is meant.

        Args:
          named: a map; its `task` and `embodiment`, where they are there, choose.
          otherwise: of a map that has neither.

        Raises:
          KeyError: none is named so. ValueError: several are left; the message lists them.
        """
        task, robot = (
            (named.get("task"), named.get("embodiment"))
            if isinstance(named, Mapping)
            else (None, None)
        )
        if task is robot is None and (otherwise is not None or len(self.served) == 1):
            return otherwise or self.served[0]
        left = {
            name: each
            for name, each in self._named.items()
            if task in (None, name) and robot in (None, each.schema.metadata.get("embodiment"))
        }
        if not left:
            raise KeyError(
                f"request: found task {task!r} and embodiment {robot!r}, which this server does "
                f"not serve; it serves {self._names(self._named)}"
            )
        if len(set(left.values())) > 1:
            raise ValueError(
                f"request: found task {task!r} and embodiment {robot!r}, and several tasks are "
                f"served: send 'task', or connect with ?task=NAME; one of {self._names(left)}"
            )
        return next(iter(left.values()))

    def _names(self, named: Mapping[str, ServedTask]) -> str:
        return ", ".join(
            f"{name!r} of embodiment {each.schema.metadata.get('embodiment')!r}"
            for name, each in named.items()
        )
