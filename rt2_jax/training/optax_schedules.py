"""Learning rates over steps: optax's schedules by name, with their arguments checked."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

SCHEDULES: Mapping[str, Callable[..., Any]] = {
    "constant": optax.constant_schedule,
    "linear": optax.linear_schedule,
    "polynomial": optax.polynomial_schedule,
    "cosine_decay": optax.cosine_decay_schedule,
    "cosine_onecycle": optax.cosine_onecycle_schedule,
    "linear_onecycle": optax.linear_onecycle_schedule,
    "exponential_decay": optax.exponential_decay,
    "piecewise_constant": optax.piecewise_constant_schedule,
    "piecewise_interpolate": optax.piecewise_interpolate_schedule,
    "warmup_constant": optax.warmup_constant_schedule,
    "warmup_cosine_decay": optax.warmup_cosine_decay_schedule,
    "warmup_exponential_decay": optax.warmup_exponential_decay_schedule,
}
"""Name -> optax's function, which is of the same name with `_schedule` behind it."""

_RATES = ("value", "init_value", "end_value", "peak_value")
_LENGTHS = ("decay_steps", "transition_steps", "warmup_steps")
_MAY_BE_ZERO = ("warmup_steps", "transition_begin")
_TEXTS = ("interpolate_type",)
_SWITCHES = ("staircase",)
_TABLE = "boundaries_and_scales"


@dataclasses.dataclass(frozen=True)
class OptaxSchedule:
    """One of optax's schedules, in the place of `LearningRate`.

    Attributes:
      name: from `SCHEDULES`.
      arguments: of optax's function, by name, e.g. `{'init_value': 0.0, 'peak_value': 1e-3,
        'warmup_steps': 500, 'decay_steps': 20_000}`.
      step_offset: subtracted from the step; for fine-tuning.

    Raises:
      ValueError: an unknown name or argument (with the nearest right one), one that is missing, or
        a value that it cannot have.
    """

    name: str
    arguments: Mapping[str, Any]
    step_offset: int = 0

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            near = difflib.get_close_matches(self.name, SCHEDULES, n=1)
            raise ValueError(
                f"OptaxSchedule.name: found {self.name!r}"
                f"{f', did you mean {near[0]!r}' if near else ''}; expected one of "
                f"{', '.join(SCHEDULES)}"
            )
        known = inspect.signature(SCHEDULES[self.name]).parameters
        for argument, value in self.arguments.items():
            if argument not in known:
                near = difflib.get_close_matches(argument, known, n=1)
                raise ValueError(
                    f"OptaxSchedule.arguments: {self.name!r} has no {argument!r}"
                    f"{f', did you mean {near[0]!r}' if near else ''}; it has {', '.join(known)}"
                )
            _check(argument, value)
        lacking = [
            name
            for name, parameter in known.items()
            if (parameter.default is parameter.empty or name == _TABLE)
            and name not in self.arguments
        ]
        if lacking:
            raise ValueError(
                f"OptaxSchedule.arguments: {self.name!r} lacks {', '.join(lacking)}; it has "
                f"{', '.join(known)}"
            )
        try:
            self._schedule()
        except ValueError as error:  # what optax says of arguments that do not fit together
            raise ValueError(f"OptaxSchedule.arguments: {self.name!r}: {error}") from error

    def __call__(self, step: jax.Array | int) -> jax.Array:
        """The learning rate of a step (from 0), float32 []."""
        step = jnp.maximum(0, jnp.asarray(step) - self.step_offset)
        return jnp.asarray(self._schedule()(step), jnp.float32)

    def _schedule(self) -> Callable[..., Any]:
        return SCHEDULES[self.name](**self.arguments)


def _check(argument: str, value: Any) -> None:
    """Refuses a value that the argument cannot have, before optax calculates with it."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    number = (whole or isinstance(value, float)) and math.isfinite(value)
    expected = None
    if argument == _TABLE:
        rows = value.items() if isinstance(value, Mapping) else ()
        kinds = [isinstance(a, int) and isinstance(b, int | float) for a, b in rows]
        if not kinds or not all(kinds) or not all(a > 0 and b > 0 for a, b in rows):
            expected = "a table {step: factor, ...} of positive numbers"
    elif argument in _TEXTS:
        if value not in ("linear", "cosine"):
            expected = "'linear' or 'cosine'"
    elif argument in _SWITCHES:
        expected = None if isinstance(value, bool) else "True or False"
    elif argument in (*_LENGTHS, *_MAY_BE_ZERO):
        least = 0 if argument in _MAY_BE_ZERO else 1
        expected = None if whole and value >= least else f"a whole number from {least} on"
    elif argument in _RATES:
        expected = None if number and value >= 0 else "a number from 0 on"
    elif not number:
        expected = "a number"
    if expected is not None:
        raise ValueError(
            f"OptaxSchedule.arguments: {argument}: found {value!r}, expected {expected}"
        )
