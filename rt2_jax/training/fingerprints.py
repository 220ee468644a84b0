"""Fingerprints of arrays: whether what a checkpoint gives back is what was saved, bit for bit.

OCDBT's checksums cover its index, not the numbers: of bytes changed at random in its data files,
every second change was read as other numbers, without a word (orbax-checkpoint 0.12.8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax import lax

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def fingerprints(tree: Mapping[str, Any]) -> dict[str, int]:
    """A 32-bit number for every array, by its path; it is the same however the array is laid out.

    One pass over the arrays, on their devices.
    """
    flat = {name: leaf for name, leaf in flatten_dict(tree, sep="/").items() if _counts(leaf)}
    return {name: int(value) for name, value in jax.device_get(_all(flat)).items()}


def changed(tree: Mapping[str, Any], expected: Mapping[str, int]) -> list[str]:
    """The arrays of `tree` whose fingerprint is another than the one expected."""
    return [
        name
        for name, value in fingerprints(tree).items()
        if name in expected and expected[name] != value
    ]


def _counts(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.dtype(leaf.dtype).itemsize in _UNSIGNED


@jax.jit
def _all(flat: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: _fingerprint(leaf) for name, leaf in flat.items()}


def _fingerprint(array: jax.Array) -> jax.Array:
    """The sum of all bit patterns, each times an odd number that its place decides, modulo 2**32.

    Sums of integers do not depend on their order; an odd factor loses no bit of a single change.
    """
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    bits = lax.bitcast_convert_type(array, _UNSIGNED[array.dtype.itemsize]).astype(jnp.uint32)
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis in range(array.ndim):
        place = place * jnp.uint32(array.shape[axis]) + lax.broadcasted_iota(
            jnp.uint32, array.shape, axis
        )
    factor = (place * jnp.uint32(2654435761)) | jnp.uint32(1)
    return jnp.sum(bits * factor, dtype=jnp.uint32)
