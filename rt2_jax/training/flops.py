"""FLOPs of a model's step, counted in its jaxpr: what MFU is a share of."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from rt2_jax.models.config import FREE_FIELDS
from rt2_jax.models.config_json import ModelConfig
from rt2_jax.models.make_model import make_model
from rt2_jax.training.freezing import join_frozen, split_frozen

Features = tuple[tuple[str, tuple[int, ...], str], ...]
"""Name, global shape and dtype of every feature of a batch."""


@functools.lru_cache(maxsize=8)
def model_flops(
    config: ModelConfig,
    features: Features,
    frozen: frozenset[str] = frozenset(),
    action_token_ids: tuple[int, ...] | None = None,
) -> float:
    """Forward and backward FLOPs of one batch, of products of matrices and convolutions.

    As the field counts them for MFU (Chowdhery et al. 2022, appendix B): a multiplication and an
    addition are two, what `remat` computes again is not counted, nor is what only frozen parameters
    would need. Shapes are traced, nothing is computed.

    Args:
      config: of the model; its `attention` and `remat` change nothing.
      features: of the global batch.
      frozen: paths of the parameters that don't train.
      action_token_ids: as of `make_model`.
    """
    fields = {each.name: each.default for each in dataclasses.fields(config)}
    plain: Any = {name: fields[name] for name in FREE_FIELDS if name in fields}
    config = dataclasses.replace(config, **plain)
    model = make_model(config, action_token_ids=action_token_ids)
    batch = {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape, dtype in features}
    params = model.abstract_params({name: shape for name, shape, _ in features})
    trained, kept = split_frozen(params, frozen)

    def loss(trained: Any, kept: Any, batch: Any) -> jax.Array:
        sums = model.example_sums(join_frozen(trained, kept), batch)
        return jnp.sum(sums.cross_entropy)

    return jaxpr_flops(jax.make_jaxpr(jax.grad(loss))(trained, kept, batch).jaxpr)


def jaxpr_flops(jaxpr: core.Jaxpr) -> float:
    """FLOPs of all products of matrices and convolutions; a scan's body counts `length` times.

    (XLA's `cost_analysis` counts it once: jax issue 18672.) A `while` loop's body counts once,
    since nothing says how often it runs; of a `cond` the costliest branch counts.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        shapes: list[Any] = [getattr(each.aval, "shape", ()) for each in equation.invars]
        out: Any = getattr(equation.outvars[0].aval, "shape", ()) if equation.outvars else ()
        if name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            total += 2.0 * math.prod(out) * math.prod(shapes[0][axis] for axis in contracted)
        elif name == "conv_general_dilated":
            kernel = shapes[1]
            outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
            # Of an input that is spread out, as in the gradient of a stride, most is zeros.
            spread = math.prod(params["lhs_dilation"])
            total += 2.0 * math.prod(out) * math.prod(kernel) / outputs / spread
        else:
            inner = [jaxpr_flops(each) for each in _jaxprs(params.values())]
            if inner:
                times = params["length"] if name == "scan" else 1
                total += times * (max(inner) if name == "cond" else sum(inner))
    return total


def _jaxprs(values: Any) -> Iterator[core.Jaxpr]:
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield from _jaxprs(value)
