"""Attention of queries to keys: as XLA compiles it, or by a kernel that never holds all weights."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from rt2_jax.models.config import IMPLEMENTATIONS
from rt2_jax.models.products import add_bias
from rt2_jax.models.recomputed import MASKED, masked_softmax
from rt2_jax.models.sharding import constrain, mesh_axes, parts

_LOG = logging.getLogger("rt2_jax.models")
_LANES = 128  # the kernel's blocks are multiples of it
_LARGEST_BLOCK = 512

Dropout = Callable[[jax.Array], jax.Array]


def attend(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    *,
    scale: float = 1.0,
    dropout: Dropout | None = None,
    implementation: str = "xla",
    where: str = "attention",
) -> jax.Array:
    """Mixes values by the softmax, in float32, of `scale * queries @ keys + bias`.

    `fused` is JAX's flash attention (Dao et al. 2022) for TPUs, forward and backward: no array of
    [heads, Q, K] weights is kept for the gradient. It takes any mask and bias, learned ones too,
    and heads of keys that several query heads share. Where it cannot be had, XLA computes the same,
    and the log says once for each layer why: on other platforms, with dropout of the weights, with
    fewer than 128 queries or keys (all of cached decoding), and where a mesh divides rows or heads
    unevenly. Rows that may attend to nothing have finite values that mean nothing in both.

    Args:
      queries: [B, Q, heads, D].
      keys: [B, K, kv_heads, D]; each head for a group of neighbouring query heads.
      values: as `keys`.
      mask: bool, broadcast to [B, heads, Q, K]; True where attention is allowed.
      bias: float32, likewise; added to the logits.
      scale: of the logits before the bias.
      dropout: of the weights, [B, heads, Q, K]; None for none.
      implementation: `xla` or `fused`.
      where: what the log calls the layer.

    Returns:
      [B, Q, heads, D], in the dtype of the queries.

    Raises:
      ValueError: another implementation.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation: found {implementation!r}, expected one of "
            f"{', '.join(IMPLEMENTATIONS)}"
        )
    # Left to itself, XLA carries the division of the residual stream into the weights' gradients.
    # Queries of every part of the length need all keys.
    queries = constrain(queries, ("batch", "length", "heads", "kv"))
    keys, values = (constrain(x, ("batch", None, "heads", "kv")) for x in (keys, values))
    if implementation == "fused":
        reason = _why_not_fused(queries, keys, dropout)
        if reason is None:
            mixed = _fused(queries, keys, values, mask, bias, scale)
            return constrain(mixed, ("batch", "length", "heads", "kv"))
        _say_once(where, reason)
    mixed = _by_xla(queries, keys, values, mask, bias, scale, dropout)
    return constrain(mixed, ("batch", "length", "heads", "kv"))


def _by_xla(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    scale: float,
    dropout: Dropout | None,
) -> jax.Array:
    batch, length, num_heads, head_dim = queries.shape
    grouped = keys.shape[2] != num_heads
    if grouped:
        groups = queries.reshape(batch, length, keys.shape[2], -1, head_dim)
        logits = jnp.einsum("bqhgd,bkhd->bhgqk", groups, keys)
        logits = logits.reshape(batch, num_heads, *logits.shape[3:])
    else:
        logits = jnp.einsum("bqhd,bkhd->bhqk", queries, keys)
    logits = logits.astype(jnp.float32)
    if scale != 1.0:
        logits *= scale
    if bias is not None:
        logits = add_bias(logits, bias)
    weights = masked_softmax(logits, mask).astype(queries.dtype)
    if dropout is not None:
        weights = dropout(weights)
    if not grouped:
        return jnp.einsum("bhqk,bkhd->bqhd", weights, values)
    weights = weights.reshape(batch, keys.shape[2], -1, *weights.shape[2:])
    mixed = jnp.einsum("bhgqk,bkhd->bqhgd", weights, values)
    return mixed.reshape(queries.shape)


def _why_not_fused(queries: jax.Array, keys: jax.Array, dropout: Dropout | None) -> str | None:
    """Why XLA has to compute it; None where the kernel can."""
    platform = _platform()
    if platform != "tpu":
        return f"there is no kernel for the platform {platform}"
    if dropout is not None:
        return "the kernel has no dropout of attention weights"
    if queries.shape[1] < _LANES or keys.shape[1] < _LANES:
        return f"{queries.shape[1]} queries of {keys.shape[1]} keys, fewer than {_LANES}"
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size > 1:
        rows, heads = (parts(axes) for axes in mesh_axes(("batch", "heads")))
        if len(queries) % rows:
            return f"{len(queries)} rows cannot be divided into {rows} parts of the mesh"
        of_keys = keys.shape[2] if keys.shape[2] > 1 else queries.shape[2]
        if of_keys % heads:
            return f"{of_keys} heads cannot be divided into {heads} parts of the mesh"
    return None


def _platform() -> str:
    """What the program is traced for: the mesh in use may be of a TPU that is not there."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


@functools.cache
def _say_once(where: str, reason: str) -> None:
    _LOG.info("%s: attention is computed by XLA, not by the fused kernel: %s", where, reason)


def _fused(
    queries: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None,
    bias: jax.Array | None,
    scale: float,
) -> jax.Array:
    """The kernel over all rows and heads, on every device for those that it has."""
    batch, num_queries, num_heads, head_dim = queries.shape
    num_keys, kv_heads = keys.shape[1:3]
    more_queries, more_keys = -num_queries % _LANES, -num_keys % _LANES
    # One array of lengths only where all queries see the same keys: the kernel takes it as it is.
    seen = None
    if mask is not None and mask.shape[1] == mask.shape[2] == 1:
        seen, mask = jnp.broadcast_to(mask[:, 0, 0], (len(mask), num_keys)), None
    if mask is not None:
        bias = jnp.where(mask, 0.0 if bias is None else bias, MASKED)
    elif more_keys and seen is None:
        seen = jnp.ones((1, num_keys), bool)
    q = _pad(queries, more_queries, axis=1).reshape(
        batch, -1, kv_heads, num_heads // kv_heads, head_dim
    )
    k, v = (_pad(x, more_keys, axis=1).transpose(0, 2, 1, 3) for x in (keys, values))
    if seen is not None:
        seen = _pad(seen, more_keys, axis=1)
    if bias is not None:
        bias = jnp.broadcast_to(bias, (*bias.shape[:2], num_queries, num_keys)) / scale
        # Lower than what a mask hides: a row that sees nothing is then the mean of its own keys.
        bias = _pad(bias, more_keys, axis=3, value=2 * MASKED / scale)
        bias = _pad(bias, more_queries, axis=2)
        heads = (1, 1) if bias.shape[1] == 1 else (kv_heads, num_heads // kv_heads)
        bias = bias.reshape(len(bias), *heads, *bias.shape[2:])
    mixed = _on_every_device(q.transpose(0, 2, 3, 1, 4), k, v, bias, seen, scale)
    mixed = mixed.transpose(0, 3, 1, 2, 4).reshape(batch, -1, num_heads, head_dim)
    return mixed[:, :num_queries]


def _on_every_device(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array | None,
    seen: jax.Array | None,
    scale: float,
) -> jax.Array:
    """XLA cannot divide a kernel by itself; rows and heads need nothing of each other.

    Args:
      q: [B, kv_heads, group, Q, D].
      k: [B, kv_heads, K, D].
      v: as `k`.
      bias: [B or 1, kv_heads or 1, group or 1, Q, K], before the scale, or None.
      seen: bool [B or 1, K], the keys that are no padding, or None.
      scale: of logits and bias.
    """
    kernel = functools.partial(_rows, scale=scale)
    if jax.sharding.get_abstract_mesh().size <= 1:
        return kernel(q, k, v, bias, seen)
    rows, heads, length = mesh_axes(("batch", "heads", "length"))
    if q.shape[3] % (parts(length) * _LANES):
        length = ()  # every device takes all queries
    # A single head of keys is whole on every device, and its query heads are divided.
    by_group = ((), heads) if q.shape[1] == 1 else (heads, ())

    def spec(x: jax.Array | None, *axes: Any) -> PartitionSpec | None:
        if x is None:
            return None
        return PartitionSpec(*(() if n == 1 else a for n, a in zip(x.shape, axes, strict=False)))

    q_spec = spec(q, rows, *by_group, length)
    kv_spec = spec(k, rows, by_group[0])
    return jax.shard_map(
        kernel,
        in_specs=(q_spec, kv_spec, kv_spec, spec(bias, rows, *by_group, length), spec(seen, rows)),
        out_specs=q_spec,
        check_vma=False,
    )(q, k, v, bias, seen)


def _rows(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array | None,
    seen: jax.Array | None,
    scale: float,
) -> jax.Array:
    """The kernel, mapped over rows, heads of keys and their groups; what they share is not copied.

    Arguments as those of `_on_every_device`.
    """
    over: list[int | None] = [None, None, None]
    if bias is not None:
        over = [None if size == 1 else 0 for size in bias.shape[:3]]
        bias = bias.squeeze([axis for axis in range(3) if over[axis] is None])
    of_seen: int | None = 0
    if seen is not None and len(seen) == 1:
        seen, of_seen = seen[0], None
    one = functools.partial(_one_head, scale=scale)
    group = jax.vmap(one, in_axes=(0, None, None, over[2], None))
    heads = jax.vmap(group, in_axes=(0, 0, 0, over[1], None))
    return jax.vmap(heads, in_axes=(0, 0, 0, over[0], of_seen))(q, k, v, bias, seen)


def _one_head(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array | None,
    seen: jax.Array | None,
    scale: float,
) -> jax.Array:
    """[Q, D], [K, D] twice, [Q, K], [K] -> [Q, D]."""
    from jax.experimental.pallas.ops.tpu import flash_attention  # imports the TPU's compiler

    segments = None
    if seen is not None:
        ones = jnp.ones((1, len(q)), jnp.int32)
        segments = flash_attention.SegmentIds(ones, seen[None].astype(jnp.int32))
    of_q, of_k = _block(len(q)), _block(len(k))
    return flash_attention.flash_attention(
        q[None, None],
        k[None, None],
        v[None, None],
        None if bias is None else bias[None, None],
        segments,
        sm_scale=scale,  # of the bias too
        block_sizes=flash_attention.BlockSizes(
            block_q=of_q,
            block_k_major=of_k,
            block_k=of_k,
            block_b=1,
            block_q_major_dkv=of_q,
            block_k_major_dkv=of_k,
            block_k_dkv=of_k,
            block_q_dkv=of_q,
            block_k_major_dq=of_k,
            block_k_dq=of_k,
            block_q_dq=of_q,
        ),
    )[0, 0]


def _block(length: int) -> int:
    """The largest block that divides a multiple of 128."""
    sizes = range(_LANES, min(length, _LARGEST_BLOCK) + 1, _LANES)
    return max(size for size in sizes if length % size == 0)


def _pad(x: jax.Array, count: int, axis: int, value: float = 0) -> jax.Array:
    if not count:
        return x
    widths = [(0, count if i == axis else 0) for i in range(x.ndim)]
    return jnp.pad(x, widths, constant_values=value)
