"""Adafactor (Shazeer and Stern 2018) with T5X's semantics, as an optax transformation."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from rt2_jax.training.optimizers import decayed
from rt2_jax.training.parameter_names import check_patterns

FACTOR_RULES = {
    "embed": "row",
    "vocab": "column",
    "mlp": "column",
    "heads": "column",
    "kv": "column",
    "joined_kv": "column",
    "layers": "batch",
    "relpos_buckets": "none",
    "lora_rank": "none",
}
"""Logical axis -> its part in the factors (`t5x/adafactor.py`, standard_logical_factor_rules).

`batch`: every slice is a parameter of its own, with its own factors, scale and clipping.
"""


@struct.dataclass
class Moments:
    """Of one parameter, under T5X's names, all float32; what is not used has the shape [1].

    Attributes:
      v_row: mean squared gradients, averaged over the columns.
      v_col: averaged over the rows.
      v: of a parameter that is not factored, in its shape.
      m: the momentum.
    """

    v_row: jax.Array
    v_col: jax.Array
    v: jax.Array
    m: jax.Array


@dataclasses.dataclass(frozen=True)
class Adafactor:
    """T5X's Adafactor; the section numbers are those of Shazeer and Stern (2018).

    Attributes:
      decay_rate: the second moments decay by 1 - t ** -decay_rate (section 7.2).
      step_offset: the step at which t is 1 less one; for fine-tuning, the first step of it.
      multiply_by_parameter_scale: the learning rate is relative to the parameter's root mean square
        (section 8), which counts as at least `epsilon2`.
      clipping_threshold: of an update's root mean square (section 6); None for none.
      beta1: of the momentum; None for none.
      weight_decay_rate: each step takes this part of a parameter off; None for none.
      factored: keep row and column means instead of all second moments (section 3).
      min_dim_size_to_factor: a matrix without a `batch` axis is factored if both sides reach it.
      epsilon1: added to squared gradients.
      epsilon2: the least scale of a parameter.
      no_decay: regular expressions; parameters whose whole path one of them matches have no weight
        decay, e.g. `.*/(scale|bias)`.
    """

    decay_rate: float = 0.8
    step_offset: int = 0
    multiply_by_parameter_scale: bool = True
    clipping_threshold: float | None = 1.0
    beta1: float | None = None
    weight_decay_rate: float | None = None
    factored: bool = True
    min_dim_size_to_factor: int = 128
    epsilon1: float = 1e-30
    epsilon2: float = 1e-3
    no_decay: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_patterns(self.no_decay, "Adafactor.no_decay")

    def transformation(self, axes: Any) -> optax.GradientTransformationExtraArgs:
        """The transformation for parameters with these logical axes.

        Its state has `Moments` in the place of each parameter. `update` takes, besides gradients,
        state and parameters, the keywords `step` (from 0) and `learning_rate`.

        Args:
          axes: the tree of the parameters with tuples of logical axis names.

        Raises:
          KeyError: a logical axis that `FACTOR_RULES` does not know.
          ValueError: a pattern of `no_decay` matches nothing.
        """
        rules = jax.tree_util.tree_map_with_path(_factor_rule, axes, is_leaf=_is_names)
        decays = decayed(axes, self.no_decay, "Adafactor.no_decay")
        if decays is None:
            decays = jax.tree.map(lambda _: True, axes, is_leaf=_is_names)

        def init(params: optax.Params) -> Any:
            return jax.tree.map(self._init, params, rules)

        def update(
            updates: optax.Updates,
            state: Any,
            params: optax.Params | None = None,
            *,
            step: jax.Array,
            learning_rate: jax.Array,
            **_: Any,
        ) -> tuple[optax.Updates, Any]:
            def one(
                param: Any, grad: Any, moments: Moments, rule: Any, decays: bool
            ) -> tuple[Any, Moments]:
                return self._update(grad, moments, param, rule, step, learning_rate, decays)

            results = jax.tree.map(one, params, updates, state, rules, decays)
            new_updates = jax.tree.map(lambda _, result: result[0], params, results)
            return new_updates, jax.tree.map(lambda _, result: result[1], params, results)

        return optax.GradientTransformationExtraArgs(init, update)

    def _init(self, param: jax.Array, rule: tuple[str, ...]) -> Moments:
        unused = jnp.zeros((1,), jnp.float32)
        v_row = v_col = v = m = unused
        factors = self._factors(param.shape, rule)
        if factors is None:
            v = jnp.zeros(param.shape, jnp.float32)
        else:
            rows, columns = factors
            v_row = jnp.zeros(np.delete(param.shape, columns), jnp.float32)
            v_col = jnp.zeros(np.delete(param.shape, rows), jnp.float32)
        if self.beta1 is not None:
            m = jnp.zeros(param.shape, jnp.float32)
        return Moments(v_row, v_col, v, m)

    def _update(
        self,
        grad: jax.Array,
        moments: Moments,
        param: jax.Array,
        rule: tuple[str, ...],
        step: jax.Array,
        learning_rate: jax.Array,
        decays: bool,
    ) -> tuple[jax.Array, Moments]:
        averaged = tuple(i for i, part in enumerate(rule) if part != "batch")
        factors = self._factors(param.shape, rule)
        t = jnp.asarray(step - self.step_offset, jnp.float32) + 1.0
        decay = 1.0 - t**-self.decay_rate
        grad = grad.astype(jnp.float32)
        squared = grad * grad + self.epsilon1
        if factors is None:
            v = decay * moments.v + (1.0 - decay) * squared
            moments = dataclasses.replace(moments, v=v)
            update = grad * v**-0.5
        else:
            rows, columns = factors
            v_row = decay * moments.v_row + (1.0 - decay) * jnp.mean(squared, axis=columns)
            v_col = decay * moments.v_col + (1.0 - decay) * jnp.mean(squared, axis=rows)
            moments = dataclasses.replace(moments, v_row=v_row, v_col=v_col)
            row_factor = jnp.expand_dims(v_row, columns)
            row_factor /= jnp.mean(row_factor, axis=rows, keepdims=True)
            update = grad * row_factor**-0.5 * jnp.expand_dims(v_col, rows) ** -0.5
        if self.clipping_threshold is not None:
            update /= jnp.maximum(1.0, _rms(update, averaged) / self.clipping_threshold)
        update *= learning_rate
        if self.multiply_by_parameter_scale:
            update *= jnp.maximum(_rms(param, averaged), self.epsilon2)
        if self.beta1 is not None:
            update = self.beta1 * moments.m + (1.0 - self.beta1) * update
            moments = dataclasses.replace(moments, m=update)
        if self.weight_decay_rate is not None and decays:
            update += self.weight_decay_rate * param
        return -update, moments

    def _factors(
        self, shape: tuple[int, ...], rule: tuple[str, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The dimensions of the rows and of the columns, or None: not factored."""
        if not self.factored or len(shape) < 2:
            return None
        if len(shape) == 2 and "batch" not in rule:
            small, large = (int(i) for i in np.argsort(shape))
            return None if shape[small] < self.min_dim_size_to_factor else ((small,), (large,))
        rows = tuple(i for i, part in enumerate(rule) if part == "row")
        columns = tuple(i for i, part in enumerate(rule) if part == "column")
        return (rows, columns) if rows and columns else None


def _factor_rule(path: Any, names: tuple[str, ...]) -> tuple[str, ...]:
    unknown = sorted(set(names) - set(FACTOR_RULES))
    if unknown:
        raise KeyError(
            f"{jax.tree_util.keystr(path, simple=True, separator='/')}: Adafactor has no rule for "
            f"the logical axes {unknown}; it has rules for {sorted(FACTOR_RULES)}"
        )
    rule = tuple(FACTOR_RULES[name] for name in names)
    if {"row", "column", "none"} <= set(rule):
        raise ValueError(
            f"{jax.tree_util.keystr(path, simple=True, separator='/')}: found rows, columns and an "
            f"axis that is neither in {names}; Adafactor cannot factor it"
        )
    return rule


def _is_names(x: Any) -> bool:
    return isinstance(x, tuple)


def _rms(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    return jnp.sqrt(jnp.mean(jnp.square(x), axis=axes, keepdims=True))
