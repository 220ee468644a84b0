"""Where arrays of a model lie on the mesh in use, by the logical axis rules in use.

Without rules or without a mesh nothing here does anything.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import PartitionSpec

_LOG = logging.getLogger("rt2_jax.models")

MeshAxes = tuple[str, ...]
Layout = tuple[PartitionSpec, PartitionSpec]
"""How a parameter is held, and how it is used."""

_RESIDUAL = ("batch", "residual_length", "embed")
_INSIDE = ("batch", "length", "embed")


def mesh_axes(names: Sequence[str | None]) -> tuple[MeshAxes, ...]:
    """The mesh axes that divide each of the logical axes; () everywhere without rules."""
    spec = nn.logical_to_mesh_axes(tuple(names)) or (None,) * len(names)
    return tuple((axes,) if isinstance(axes, str) else tuple(axes or ()) for axes in spec)


def parts(axes: MeshAxes) -> int:
    """Into how many parts these axes of the mesh in use divide."""
    return math.prod(jax.sharding.get_abstract_mesh().shape[name] for name in axes)


def constrain(x: jax.Array, names: Sequence[str | None]) -> jax.Array:
    """Lays `x` out as the rules say of its logical axes.

    A dimension that cannot be divided so is divided by the first of its mesh axes alone, or stays
    whole; the log says so once.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return nn.with_logical_constraint(x, tuple(names))
    if not isinstance(x, jax.core.Tracer):
        return x
    return _lay_out(x, _spec(x.shape, names))


def constrain_residual(x: jax.Array) -> jax.Array:
    """The residual stream [B, L, E] between blocks."""
    return constrain(x, _RESIDUAL)


def enter_block(x: jax.Array) -> jax.Array:
    """A norm's output [B, L, E], whole along what divides the residual stream alone.

    This is where sequence parallelism (Korthikanti et al. 2022, section 4.2.2) gathers: behind the
    norm, in the dtype of activations, which XLA would otherwise cast to afterwards; and where its
    gradient is added up and scattered at once.
    """
    if jax.sharding.get_abstract_mesh().empty or not isinstance(x, jax.core.Tracer):
        return x
    outside, inside = _spec(x.shape, _RESIDUAL), _spec(x.shape, _INSIDE)
    return x if outside == inside else _gather_length(x, outside, inside)


def parameter_layout(names: Sequence[str]) -> Layout | None:
    """How a parameter of these logical axes is held and used; None where that is the same.

    What divides both parameters and batch is gathered before it is used (ZeRO-3).
    """
    if jax.sharding.get_abstract_mesh().empty:
        return None
    held, (batch,) = mesh_axes(names), mesh_axes(("batch",))
    used = tuple(tuple(name for name in axes if name not in batch) for axes in held)
    if sum(map(parts, held)) == sum(map(parts, used)):
        return None
    return PartitionSpec(*held), PartitionSpec(*used)


def gather_parameter(x: jax.Array, layout: Layout | None) -> jax.Array:
    """A parameter, already in the dtype of activations, as it is used.

    The barrier keeps the cast before the gather: XLA moves it behind, for twice the bytes.
    """
    if layout is None:
        return x
    x = _lay_out(x, layout[0])
    return _lay_out(jax.lax.optimization_barrier(x), layout[1])


def scatter_gradient(x: jax.Array, layout: Layout | None) -> jax.Array:
    """A parameter's gradient as the parameter is held: added up and scattered at once.

    The barrier keeps sum and cut together: XLA takes the cut into each of what reads the gradient,
    its norm and the optimizer, and is left with a sum on all devices, for twice the bytes.
    """
    if layout is None:
        return x
    return jax.lax.optimization_barrier(_lay_out(x, layout[0]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather_length(x: jax.Array, outside: PartitionSpec, inside: PartitionSpec) -> jax.Array:
    x = _lay_out(x, outside)
    return _lay_out(jax.lax.optimization_barrier(x), inside)


def _gather_length_forward(
    x: jax.Array, outside: PartitionSpec, inside: PartitionSpec
) -> tuple[jax.Array, None]:
    return _gather_length(x, outside, inside), None


def _gather_length_backward(
    outside: PartitionSpec, inside: PartitionSpec, _: None, gradient: jax.Array
) -> tuple[jax.Array]:
    return (_lay_out(gradient, outside),)


_gather_length.defvjp(_gather_length_forward, _gather_length_backward)


def _lay_out(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    """In a program; an array that is computed at once lies where it lies."""
    return jax.lax.with_sharding_constraint(x, spec) if isinstance(x, jax.core.Tracer) else x


def _spec(shape: Sequence[int], names: Sequence[str | None]) -> PartitionSpec:
    spec: list[Any] = []
    for size, name, axes in zip(shape, names, mesh_axes(names), strict=True):
        kept = axes
        while size % parts(kept):
            kept = kept[:-1]
        if kept != axes and size > 1:
            _say_once(str(name), size, axes, kept)
        spec.append(kept or None)
    return PartitionSpec(*spec)


@functools.cache
def _say_once(name: str, size: int, axes: MeshAxes, kept: MeshAxes) -> None:
    _LOG.info(
        "an axis %r of %d cannot be divided by the mesh axes %s: %s",
        name,
        size,
        ", ".join(axes),
        f"it is divided by {', '.join(kept)} alone"
        if parts(kept) > 1
        else "every device has all of it",
    )
