"""Products with parameters whose gradients XLA compiles badly as `jax.grad` writes them."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from rt2_jax.models.sharding import Layout, gather_parameter, scatter_gradient


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(x: jax.Array, kernel: jax.Array, layout: Layout | None = None) -> jax.Array:
    """`x @ kernel`: [..., in] and [in, out] -> [..., out].

    `layout` is the kernel's (`parameter_layout`): it is gathered for the product and once more for
    its gradient, so that no gathered kernel is kept in between.

    On CPUs the kernel's gradient is a product of two matrices. As one over all leading axes, XLA
    copies an operand transposed, and draws what made that operand into the copy, element by element
    across the whole of memory. Elsewhere nothing is flattened: leading axes may be sharded.
    """
    return x @ gather_parameter(kernel, layout)


def _matmul_forward(
    x: jax.Array, kernel: jax.Array, layout: Layout | None
) -> tuple[jax.Array, tuple]:
    return x @ gather_parameter(kernel, layout), (x, kernel)


def _matmul_backward(
    layout: Layout | None, saved: tuple, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    of_kernel = lax.platform_dependent(x, gradient, cpu=_flat_product, default=_product)
    of_x = gradient @ gather_parameter(kernel, layout).T
    return of_x, scatter_gradient(of_kernel, layout)


def _flat_product(x: jax.Array, y: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1]).T @ y.reshape(-1, y.shape[-1])


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum("...i,...o->io", x, y)


matmul.defvjp(_matmul_forward, _matmul_backward)


def narrow_matmul(
    x: jax.Array, kernel: jax.Array, scale: jax.Array | None, dtype: Any
) -> jax.Array:
    """`(x @ kernel) * scale` of a kernel that is kept in fewer bits, for serving alone.

    Args:
      x: float [..., in].
      kernel: bfloat16 or int8 [in, out].
      scale: float32 [out], of each output, or None.
      dtype: of the result; the product is added up in float32.
    """
    # Without the barrier XLA widens all kernels before a loop over tokens and keeps them so.
    x, kernel = lax.optimization_barrier((x, kernel))
    product = jnp.matmul(x, kernel.astype(x.dtype), preferred_element_type=jnp.float32)
    return (product if scale is None else product * scale).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def look_up(table: jax.Array, tokens: jax.Array, dtype: Any, layout: Layout | None) -> jax.Array:
    """Rows of a table [vocab, E] at int32 [...] -> `dtype` [..., E].

    The table is gathered in `dtype`, by its `layout`. Its gradient is added up in its own dtype,
    for a row may be taken many times.
    """
    if layout is None:
        return jnp.take(table, tokens, axis=0).astype(dtype)
    return jnp.take(gather_parameter(table.astype(dtype), layout), tokens, axis=0)


def _look_up_forward(
    table: jax.Array, tokens: jax.Array, dtype: Any, layout: Layout | None
) -> tuple[jax.Array, tuple]:
    return look_up(table, tokens, dtype, layout), (tokens, table)


def _look_up_backward(
    dtype: Any, layout: Layout | None, saved: tuple, gradient: jax.Array
) -> tuple[jax.Array, None]:
    tokens, table = saved
    taken = jax.linear_transpose(lambda table: jnp.take(table, tokens, axis=0), table)
    return scatter_gradient(taken(gradient.astype(table.dtype))[0], layout), None


look_up.defvjp(_look_up_forward, _look_up_backward)


@jax.custom_vjp
def add_bias(logits: jax.Array, bias: jax.Array) -> jax.Array:
    """`logits + bias`: [B, ...] and [B or 1, ...] of the same rank -> [B, ...].

    On CPUs the gradient of a bias that all rows share is summed by a product with ones: XLA's sum
    over the first axis takes longer there than the attention that it belongs to.
    """
    return logits + bias


def _add_forward(logits: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    return logits + bias, bias


def _add_backward(bias: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    if bias.shape == gradient.shape:
        return gradient, gradient
    return gradient, lax.platform_dependent(gradient, cpu=_sum_by_product, default=_sum)


def _sum_by_product(x: jax.Array) -> jax.Array:
    ones = lax.optimization_barrier(jnp.ones((1, len(x)), x.dtype))
    return jnp.tensordot(ones, x, axes=1)


def _sum(x: jax.Array) -> jax.Array:
    return jnp.sum(x, axis=0, keepdims=True)


add_bias.defvjp(_add_forward, _add_backward)
