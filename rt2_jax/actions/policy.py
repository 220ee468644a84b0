"""The contract between robots, environments and whatever chooses actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rt2_jax.actions.space import ActionSpace, check_actions


@dataclass(frozen=True)
class Observation:
    """What a robot sees and is asked to do at one step.

    Attributes:
      images: view name -> uint8 [H, W, 3], RGB, newest frame; a policy keeps its own history.
      instruction: what to do, in words.
      state: proprioception, float32 [S], or None.
      instruction_embedding: float32 [E], the vector of the instruction, for a policy that reads it
        and has none of these words; or None.
      session: which episode this belongs to; several may share one policy.
      step: its number within the episode, from 0.
      captured_at: when the pictures were taken, on this process's `time.monotonic()`; a remote
        policy counts its budget from there, and others don't read it. None: when it is asked.
    """

    images: Mapping[str, np.ndarray]
    instruction: str
    state: np.ndarray | None = None
    session: str | None = None
    step: int | None = None
    instruction_embedding: np.ndarray | None = None
    captured_at: float | None = None

    def check(self) -> None:
        """Refuses wrong types and shapes, naming the camera.

        Raises:
          TypeError: an image is no uint8 array, the state or the instruction's vector no float32
            array, or the instruction no text.
          ValueError: a wrong shape, an empty instruction, or numbers that are not finite.
        """
        for view, image in self.images.items():
            if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
                raise TypeError(
                    f"observation: image {view!r} must be a uint8 array, found {_kind(image)}"
                )
            if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
                raise ValueError(
                    f"observation: image {view!r} must have shape [H, W, 3], "
                    f"found {list(image.shape)}"
                )
        if not isinstance(self.instruction, str):
            raise TypeError(
                f"observation: the instruction must be text, found {_kind(self.instruction)}"
            )
        if not self.instruction.strip():
            raise ValueError("observation: the instruction is empty")
        for name, numbers, length in (
            ("state", self.state, "S"),
            ("instruction_embedding", self.instruction_embedding, "E"),
        ):
            if numbers is not None:
                _check_numbers(numbers, name, length)


def _check_numbers(numbers: Any, name: str, length: str) -> None:
    if not isinstance(numbers, np.ndarray) or numbers.dtype != np.float32:
        raise TypeError(f"observation: the {name} must be a float32 array, found {_kind(numbers)}")
    if numbers.ndim != 1:
        raise ValueError(
            f"observation: the {name} must have shape [{length}], found {list(numbers.shape)}"
        )
    wrong = np.flatnonzero(~np.isfinite(numbers))
    if wrong.size:
        raise ValueError(
            f"observation: the {name} is not finite at index {wrong[0]}: {numbers[wrong[0]]}"
        )


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    return type(value).__name__


class PolicyFault(ValueError):
    """The policy is at fault, not the observation that it was asked about."""


@runtime_checkable
class Policy(Protocol):
    """Anything that chooses actions: the model, a remote client, a scripted expert."""

    def reset(self, session: str | None = None) -> None:
        """Forgets what it remembers of an episode; called before its first observation."""

    def infer(self, observation: Observation) -> dict[str, Any]:
        """Chooses what to do next.

        Returns:
          `actions`: float32 [K, D], K >= 1 steps to execute in order, native units; and whatever
          else the policy reports.
        """


def check_policy_output(space: ActionSpace, result: Any, where: str = "policy") -> np.ndarray:
    """Refuses a policy's answer that is no action chunk of this space.

    Returns:
      `result["actions"]`, float32 [K, D].

    Raises:
      KeyError: no `actions`. TypeError: not float32. ValueError: wrong shape or values.
    """
    if not isinstance(result, Mapping) or "actions" not in result:
        found = sorted(map(str, result)) if isinstance(result, Mapping) else type(result).__name__
        raise KeyError(f"{where}: expected a dict with 'actions', found {found}")
    actions = result["actions"]
    if not isinstance(actions, np.ndarray) or actions.dtype != np.float32:
        raise TypeError(f"{where}: 'actions' must be a float32 array, found {_kind(actions)}")
    if actions.ndim != 2 or actions.shape[0] < 1:
        raise ValueError(
            f"{where}: 'actions' must have shape [K, {space.dimension}] with K >= 1, "
            f"found {list(actions.shape)}"
        )
    return check_actions(space, actions, f"{where}: actions")
