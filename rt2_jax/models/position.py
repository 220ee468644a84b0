"""Where things stand: T5's relative position bias and a vision transformer's learned positions."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rt2_jax.models.layer_stack import LAYER_AXIS
from rt2_jax.models.layers import bias_of_buckets, partitioned


def relative_buckets(
    distance: jax.Array, bidirectional: bool, num_buckets: int, max_distance: int
) -> jax.Array:
    """T5's bucket of every distance (Raffel et al. 2020, section 2.1).

    Half of the buckets hold one distance each, the other half grow logarithmically up to
    `max_distance`; bidirectional, one half of all is for what comes after.

    Args:
      distance: int32, any shape: the key's position minus the query's.
      bidirectional: False in a decoder: what comes after shares the bucket of distance 0.
      num_buckets: in all.
      max_distance: beyond it all distances share the last bucket.

    Returns:
      int32 of the same shape, 0 to `num_buckets - 1`.
    """
    offset = jnp.zeros_like(distance)
    back = -distance
    if bidirectional:
        num_buckets //= 2
        offset = jnp.where(back < 0, num_buckets, 0)
        back = jnp.abs(back)
    back = jnp.maximum(back, 0)
    exact = num_buckets // 2
    growth = (num_buckets - exact) / math.log(max_distance / exact)
    # A distance of 0 is in an exact bucket; the epsilon keeps its unused logarithm finite.
    ratio = back.astype(jnp.float32) / exact + np.finfo(np.float32).eps
    large = exact + (jnp.log(ratio) * growth).astype(jnp.int32)
    return offset + jnp.where(back < exact, back, jnp.minimum(large, num_buckets - 1))


class RelativePositionBias(nn.Module):
    """A bias of attention logits for every head and bucket of distance.

    `num_layers`: as many layers with a table each (umT5); None is one table for all of them (T5).
    """

    num_heads: int
    num_buckets: int
    max_distance: int
    bidirectional: bool
    num_layers: int | None = None

    @nn.compact
    def __call__(self, queries: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Positions int32 [B or 1, Q] and [B or 1, K] -> what the layers share, what each has.

        Returns:
          The bias float32 [B or 1, heads, Q, K], and None; with `num_layers` the buckets
          int32 [B or 1, Q, K], and the tables float32 [layers, heads, buckets], of which
          `bias_of_buckets` makes the bias inside of a layer: all of them together would be large.
        """
        shape: tuple[int, ...] = (self.num_heads, self.num_buckets)
        axes: tuple[str, ...] = ("heads", "relpos_buckets")
        if self.num_layers is not None:
            # Where T5X's scanned umT5 has its layers.
            shape = (*shape[:LAYER_AXIS], self.num_layers, *shape[LAYER_AXIS:])
            axes = (*axes[:LAYER_AXIS], "layers", *axes[LAYER_AXIS:])
        init = nn.initializers.variance_scaling(
            1.0, "fan_avg", "uniform", in_axis=0, out_axis=-1, batch_axis=range(1, len(shape) - 1)
        )
        table = self.param("rel_embedding", partitioned(init, axes), shape)
        distance = keys[:, None, :] - queries[:, :, None]
        buckets = relative_buckets(
            distance, self.bidirectional, self.num_buckets, self.max_distance
        )
        if self.num_layers is None:
            return bias_of_buckets(table, buckets), None
        return buckets, jnp.moveaxis(table, LAYER_AXIS, 0)


def sine_positions(grid: tuple[int, int], width: int) -> np.ndarray:
    """Sines and cosines of rows and columns, float32 [rows * columns, width].

    Chen et al. 2021 (MoCo v3), section 4.3: a quarter of the features each for the sine and the
    cosine of the column and of the row, at wave lengths growing geometrically up to 10,000.
    """
    frequency = 10_000.0 ** -np.linspace(0, 1, width // 4)
    rows, columns = np.mgrid[: grid[0], : grid[1]]
    angles = [part.ravel()[:, None] * frequency for part in (columns, rows)]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate(waves, axis=1).astype(np.float32)


def resample_positions(
    table: jax.Array, grid: tuple[int, int], new_grid: tuple[int, int]
) -> jax.Array:
    """Learned positions for another resolution: bilinear between the old places.

    Args:
      table: float [rows * columns, width], row by row.
      grid: its rows and columns.
      new_grid: those wanted.

    Returns:
      float [new rows * new columns, width].

    Raises:
      ValueError: the table hasn't one row for each place of `grid`.
    """
    if len(table) != grid[0] * grid[1]:
        raise ValueError(
            f"position table: found {len(table)} rows, expected {grid[0] * grid[1]} for a grid of "
            f"{grid[0]} x {grid[1]}"
        )
    width = table.shape[1]
    resized = jax.image.resize(table.reshape(*grid, width), (*new_grid, width), "bilinear")
    return resized.reshape(-1, width)
