"""Actions that leave the server: inside the space and the operator's limits, and sure enough."""

from __future__ import annotations

import json
import math
import pathlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rt2_jax.actions.bounds import Bounds, FixedBounds
from rt2_jax.actions.identity import check_keys
from rt2_jax.actions.policy import Observation, check_policy_output
from rt2_jax.actions.space import ActionSpace
from rt2_jax.serving.outcomes import PolicyError, UnsafeActionError

_MOST_SESSIONS = 4096


@dataclass(frozen=True)
class FieldLimit:
    """How far an action field may go, in its unit.

    Attributes:
      max_abs: largest absolute value of a step; None for any.
      max_change: largest change from one step to the next; None for any.
    """

    max_abs: float | None = None
    max_change: float | None = None


@dataclass(frozen=True)
class Safety:
    """What an operator asks of actions beyond their space's bounds.

    Attributes:
      limits: of fields by name.
      hold_back: actions beyond a limit are brought back to it, which the answer says, instead of
        being refused.
      min_confidence: below which an answer is reported; None for none.
      refuse_low_confidence: such an answer is refused.
    """

    limits: Mapping[str, FieldLimit] = field(default_factory=dict)
    hold_back: bool = False
    min_confidence: float | None = None
    refuse_low_confidence: bool = False


def read_limits(path: pathlib.Path) -> dict[str, FieldLimit]:
    """Limits of a JSON file: `{"position_delta_x": {"max_abs": 0.02, "max_change": 0.01}}`.

    Raises:
      OSError: it cannot be read. TypeError, KeyError, ValueError: it holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: found no JSON ({error})") from error
    if not isinstance(data, Mapping):
        raise TypeError(f"{path}: found {type(data).__name__}, expected a map from field to limits")
    limits = {}
    for name, each in data.items():
        check_keys(f"{path}: limits of {name!r}", each, (), ("max_abs", "max_change"))
        for key, value in each.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value <= 0:
                raise ValueError(
                    f"{path}: {key} of {name!r}: found {value!r}, expected a number above 0 in "
                    "the field's unit"
                )
        limits[name] = FieldLimit(**each)
    return limits


class ActionChecks:
    """Checks the answers of one task.

    Args:
      metadata: of its policy; `action_bounds` where the space's bounds come from statistics.
      safety: of the operator.

    Raises:
      KeyError: a limit of a field that the space has not. ValueError: of a discrete one.
    """

    def __init__(self, metadata: Mapping[str, Any], safety: Safety) -> None:
        self.space = ActionSpace.from_json(metadata["action_space"])
        self._safety = safety
        self._low, self._high = _bounds(self.space, metadata)
        self._abs = np.full(self.space.dimension, np.inf)
        self._change = np.full(self.space.dimension, np.inf)
        for name, limit in safety.limits.items():
            index = self.space.index(name)
            if self.space.fields[index].levels is not None:
                raise ValueError(f"limits: {name!r} is discrete; only numbers can have limits")
            self._abs[index] = math.inf if limit.max_abs is None else limit.max_abs
            self._change[index] = math.inf if limit.max_change is None else limit.max_change
        # Session -> the step and the actions of its last answer.
        self._last: OrderedDict[str, tuple[int | None, np.ndarray]] = OrderedDict()

    def forget(self, session: str | None) -> None:
        """An episode begins: there is no last answer."""
        self._last.pop(str(session), None)

    def check(self, observation: Observation, result: Any) -> Mapping[str, Any]:
        """The result as it may leave.

        With limits that hold back, it has `held_back`, the names of fields that were; `levels` and
        `tokens` stay what the policy said. With a least confidence it has `low_confidence`.

        Raises:
          PolicyError: no actions, or outside the space's bounds.
          UnsafeActionError: beyond a limit, or of low confidence.
        """
        try:
            actions = check_policy_output(self.space, result, "policy")
        except (KeyError, TypeError, ValueError) as error:
            raise PolicyError(str(error.args[0] if error.args else error)) from error
        outside = (actions < self._low) | (actions > self._high)
        if outside.any():
            step, index = (int(i) for i in np.argwhere(outside)[0])
            raise PolicyError(
                f"policy: actions: field {self.space.names[index]!r} at step {step} is "
                f"{actions[step, index]:g} {self.space.fields[index].unit}, outside its bounds "
                f"{self._low[index]:g} to {self._high[index]:g}; it is not given, and not clipped"
            )
        result = self._with_confidence(result)
        return self._with_limits(observation, result, actions) if self._safety.limits else result

    def _with_confidence(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        least, found = self._safety.min_confidence, result.get("confidence")
        if least is None or found is None:
            return result
        low = not found >= least  # also where it is no number
        if low and self._safety.refuse_low_confidence:
            raise UnsafeActionError(
                f"the policy's confidence is {found:.3g}, expected {least:g} or more: it does not "
                "know what to do here"
            )
        return {**result, "low_confidence": low}

    def _with_limits(
        self, observation: Observation, result: Mapping[str, Any], actions: np.ndarray
    ) -> Mapping[str, Any]:
        before = self._before(observation)
        limited = np.clip(actions, -self._abs, self._abs)
        for step in range(len(limited)):
            if before is not None:
                limited[step] = np.clip(limited[step], before - self._change, before + self._change)
            before = limited[step]
        limited = limited.astype(np.float32)
        # 0.02 of a file is not below the float32 that is nearest to it.
        beyond = np.abs(actions - limited) > 1e-6 * np.minimum(self._abs, self._change)
        limited[~beyond] = actions[~beyond]
        names = [self.space.names[i] for i in np.flatnonzero(beyond.any(axis=0))]
        if names and not self._safety.hold_back:
            step, index = (int(i) for i in np.argwhere(beyond)[0])
            field_ = self.space.fields[index]
            limit = self._safety.limits[field_.name]
            allowed = round(float(limited[step, index]), 6) + 0.0
            raise UnsafeActionError(
                f"field {field_.name!r} at step {step} is {actions[step, index]:g} {field_.unit}, "
                f"and the limits allow {allowed:g} (max_abs {limit.max_abs}, "
                f"max_change {limit.max_change}, {self._said_before(observation, index)}); the "
                "action is not given"
            )
        session = str(observation.session)
        self._last[session] = observation.step, limited
        self._last.move_to_end(session)
        if len(self._last) > _MOST_SESSIONS:
            self._last.popitem(last=False)
        if not self._safety.hold_back:
            return result
        return {**result, "actions": limited, "held_back": names}

    def _before(self, observation: Observation) -> np.ndarray | None:
        """The action that was done last: of the last answer, the step before this one's."""
        step, actions = self._last.get(str(observation.session), (None, None))
        if actions is None:
            return None
        done = len(actions)
        if step is not None and observation.step is not None:
            done = min(max(observation.step - step, 1), len(actions))
        return actions[done - 1]

    def _said_before(self, observation: Observation, index: int) -> str:
        before = self._before(observation)
        return "the session's first" if before is None else f"after {before[index]:g}"


def _bounds(space: ActionSpace, metadata: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Low and high of each field, float32 [D]; infinite where the metadata does not say them."""
    low = np.full(space.dimension, -np.inf, np.float32)
    high = np.full(space.dimension, np.inf, np.float32)
    if metadata.get("action_bounds"):
        bounds = Bounds.from_json(metadata["action_bounds"])
        return bounds.low.astype(np.float32), bounds.high.astype(np.float32)
    for index, each in enumerate(space.fields):
        if isinstance(each.bounds, FixedBounds):
            low[index], high[index] = each.bounds.low, each.bounds.high
    return low, high
