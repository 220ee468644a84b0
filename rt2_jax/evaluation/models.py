"""A trained model as a policy source: behind a URL, or a checkpoint in this process."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rt2_jax import client
from rt2_jax.evaluation.policy_sources import LocalPolicy, RemotePolicySource
from rt2_jax.sim.simulation import EMBODIMENT

if TYPE_CHECKING:
    from rt2_jax.inference.engine import PolicyEngine


@dataclasses.dataclass(frozen=True)
class Connect:
    """Connects to a policy server; pickled on its way to the processes that play."""

    url: str
    token: str | None = None

    def __call__(self, patience_s: float = 0.0) -> tuple[Any, Mapping[str, Any]]:
        remote_policy: Any = client.RemotePolicy
        policy = remote_policy(self.url, token=self.token, patience_s=patience_s)
        return policy, policy.metadata


def remote(
    url: str, *, name: str = "", token: str | None = None, patience_s: float = 0.0
) -> RemotePolicySource:
    """The policy that a server serves, which may still be starting for `patience_s`.

    Raises:
      ConnectionError: no server answers. ValueError: its actions are not the table-top world's.
    """
    connect = Connect(url, token)
    policy, metadata = connect(patience_s)
    policy.close()
    return RemotePolicySource(name or url, connect, metadata)


def local_engine(
    checkpoint: str | pathlib.Path, *, name: str = "", which: str = "params"
) -> LocalPolicy:
    """The policy of a checkpoint, on this machine's devices.

    Args:
      checkpoint: its place, or `pretrained:NAME`.
      name: of the policy in the results.
      which: `params`, or `ema` for their average.

    Raises:
      FileNotFoundError, KeyError, ValueError: no checkpoint, or none of the table-top world's
        robot.
    """
    from rt2_jax.inference.engine import PolicyEngine

    engine = PolicyEngine.from_checkpoint(checkpoint, which=which)
    source = engine_source(engine, name or str(checkpoint))
    engine.warm_up()
    return source


def engine_source(engine: PolicyEngine, name: str) -> LocalPolicy:
    """The policy of an engine in this process.

    Raises:
      KeyError, ValueError: it knows no robot of the table-top world.
    """
    from rt2_jax.inference.engine import EnginePolicy

    policy = EnginePolicy(engine, engine.robot_task(embodiment=EMBODIMENT))
    return LocalPolicy(policy, name, policy.metadata)


def seen_pictures(
    source: object, cameras: tuple[str, ...], size: tuple[int, int]
) -> tuple[tuple[str, ...], tuple[int, int]]:
    """The cameras and the (height, width) that a model says it was trained on.

    Args:
      source: of a policy.
      cameras: of a policy that does not say.
      size: of a policy that does not say.
    """
    said: Mapping[str, Any] = {}
    if isinstance(source, RemotePolicySource):
        said = source.metadata
    elif isinstance(source, LocalPolicy):
        said = source.description
    views, camera_size = said.get("views"), said.get("camera_size")
    return (
        tuple(views) if views else cameras,
        (camera_size[0], camera_size[1]) if camera_size else size,
    )
