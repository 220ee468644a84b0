"""Where a rollout's policy comes from: a name, a server, or an object in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from rt2_jax.actions.identity import content_hash
from rt2_jax.actions.policy import Observation, Policy
from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.policies import POLICIES, make_policy
from rt2_jax.sim.simulation import TABLETOP_ACTIONS

ALIASES: Mapping[str, str] = {"nothing": "do_nothing"}
"""Shorter names of `rt2_jax.sim.policies.POLICIES`."""


@runtime_checkable
class BatchPolicy(Policy, Protocol):
    """A policy that answers several sessions at once, such as the inference engine's."""

    def infer_batch(self, observations: Sequence[Observation]) -> Sequence[Mapping[str, Any]]:
        """What `infer` answers, for each of these observations."""


class PolicySource(Protocol):
    """Makes policies in the processes that play; it is pickled on its way there."""

    @property
    def name(self) -> str:
        """Of the policy, as results and tables show it."""

    @property
    def policy_hash(self) -> str:
        """Of all that is known of the policy: equal names and hashes mean the same policy."""

    @property
    def lost(self) -> tuple[type[Exception], ...]:
        """What its policies raise when the server has gone away."""

    def make(self, env: TabletopEnv) -> Policy:
        """A policy for this environment; raises one of `lost` while the server is away."""


@dataclasses.dataclass(frozen=True)
class NamedPolicy:
    """One of `rt2_jax.sim.policies.POLICIES`, or of `ALIASES`.

    Attributes:
      policy: which.
      label: as results show it; the policy's own name if empty.

    Raises:
      ValueError: an unknown name.
    """

    policy: str
    label: str = ""
    lost: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        if self._key not in POLICIES:
            known = ", ".join((*POLICIES, *ALIASES))
            raise ValueError(f"policy: found {self.policy!r}, expected one of {known}")

    @property
    def _key(self) -> str:
        return ALIASES.get(self.policy, self.policy)

    @property
    def name(self) -> str:
        return self.label or self.policy

    @property
    def policy_hash(self) -> str:
        return content_hash({"policy": self._key})

    def make(self, env: TabletopEnv) -> Policy:
        return make_policy(self._key, env)


@dataclasses.dataclass(frozen=True)
class LocalPolicy:
    """A policy object in the process that evaluates; environments send it their observations.

    With a `BatchPolicy` all observations that wait are answered at once.

    Attributes:
      policy: the object; its sessions are told apart by name.
      name: as results show it.
      description: plain JSON, what decides its answers; an engine's metadata, for example.

    Raises:
      ValueError: the description says that its actions are not those of the table-top world.
    """

    policy: Policy
    name: str
    description: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        refuse_other_actions(self.name, self.description)

    @property
    def policy_hash(self) -> str:
        return _identity_of(self.description)

    def answer(self, observations: Sequence[Observation]) -> list[Mapping[str, Any]]:
        """What the policy says to these observations."""
        if isinstance(self.policy, BatchPolicy):
            return list(self.policy.infer_batch(observations))
        return [self.policy.infer(observation) for observation in observations]


@dataclasses.dataclass(frozen=True)
class RemotePolicySource:
    """A policy server: every parallel environment is a session of its own.

    Attributes:
      name: as results show it; the URL is a good one.
      connect: connects to it and returns the policy with the metadata that the server sent; it is
        pickled on its way to the processes that play.
      metadata: what the server said of itself at the beginning; it must stay so.
      lost: what `connect` and the policy raise when the server has gone away.

    Raises:
      ValueError: the server's actions are not those of the table-top world.
    """

    name: str
    connect: Callable[[], tuple[Policy, Mapping[str, Any]]]
    metadata: Mapping[str, Any]
    lost: tuple[type[Exception], ...] = (ConnectionError, TimeoutError)

    def __post_init__(self) -> None:
        refuse_other_actions(self.name, self.metadata)

    @property
    def policy_hash(self) -> str:
        return _identity_of(self.metadata)

    def make(self, env: TabletopEnv) -> Policy:
        policy, metadata = self.connect()
        if _identity_of(metadata) != self.policy_hash:
            raise ValueError(
                f"{self.name}: the server now serves another policy than when the evaluation "
                "began; evaluate it under another name, or serve the first one again"
            )
        return policy


def _identity_of(metadata: Mapping[str, Any]) -> str:
    """The hash of what decides answers: a server may batch otherwise and give the same ones."""
    return content_hash({key: metadata[key] for key in metadata if key != "batch_sizes"})


def refuse_other_actions(name: str, metadata: Mapping[str, Any]) -> None:
    """Refuses a policy that says that its actions are not the table-top world's.

    Raises:
      ValueError: `metadata` names another action space.
    """
    space = metadata.get("action_space")
    found = metadata.get("action_space_hash")
    if found is None and isinstance(space, Mapping):
        found = content_hash(dict(space))
    if found is not None and found != TABLETOP_ACTIONS.hash:
        raise ValueError(
            f"{name}: its actions are of another space (hash {str(found)[:12]}) than the built-in "
            f"world's {TABLETOP_ACTIONS.name!r} ({TABLETOP_ACTIONS.hash[:12]}); evaluate a policy "
            "that was trained on its recordings"
        )
