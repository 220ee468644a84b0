"""Fingerprints: one for a layout or another, and another for any change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from rt2_jax.training.fingerprints import changed, fingerprints
from rt2_jax.training.mesh import MeshShape, make_mesh


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool", "uint8"])
def test_any_change_or_exchange_is_seen(dtype):
    values = np.arange(24).reshape(4, 6) % 2 if dtype == "bool" else np.arange(24).reshape(4, 6)
    array = jnp.asarray(values, dtype)
    expected = fingerprints({"a": {"b": array}})
    assert changed({"a": {"b": array}}, expected) == []
    assert changed({"a": {"b": array.at[3, 5].set(0)}}, expected) == ["a/b"]
    assert changed({"a": {"b": array[:, ::-1]}}, expected) == ["a/b"]


def test_how_an_array_is_laid_out_does_not_matter():
    array = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    mesh = make_mesh(MeshShape(fsdp=4, tensor=2, data=1))
    divided = jax.device_put(array, NamedSharding(mesh, PartitionSpec("fsdp", "tensor")))
    assert fingerprints({"x": divided}) == fingerprints({"x": jnp.asarray(array)})
