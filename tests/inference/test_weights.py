"""Weights as they are served: layers apart, in few bits if wanted, and known by one hash."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from rt2_jax.actions.policy import Observation, check_policy_output
from rt2_jax.inference.engine import PolicyEngine
from rt2_jax.inference.weights import (
    Weights,
    abstract_params,
    quantize,
    random_weights,
    serving_weights,
    weights_hash,
)
from rt2_jax.models.layer_stack import unstack_layers
from rt2_jax.training.checkpoints import restore_params
from rt2_jax.training.description import RunDescription


@pytest.fixture(scope="module")
def description(untrained):
    return RunDescription.from_checkpoint(untrained)


@pytest.fixture
def stored(untrained, description):
    return restore_params(untrained, abstract_params(description))


def served(description, params, format="stored", **options):
    shapes = description.inputs.batch_shapes(1)
    return serving_weights(description.make_model(), params, shapes, format, **options)


def test_layers_are_unstacked_at_load_and_the_hash_is_that_of_the_stack(description, stored):
    expected, digest = unstack_layers(stored), weights_hash(stored)
    found = served(description, stored)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected)
    assert found.hash == digest and found.bytes == sum(x.nbytes for x in jax.tree.leaves(stored))


def test_the_stacked_arrays_are_let_go(description, stored):
    leaves = flatten_dict(stored)
    found = served(description, stored, consume=True)
    kept = {id(leaf) for leaf in jax.tree.leaves(found.params)}
    for path, leaf in leaves.items():
        assert leaf.is_deleted() == ("layers" in path), path
        assert "layers" in path or id(leaf) in kept


def test_eight_bits_are_off_by_half_a_step_of_each_output_at_most():
    kernel = jax.random.normal(jax.random.key(0), (64, 32)) * jnp.geomspace(0.01, 10, 32)
    values, scale = quantize(kernel.at[:, 3].set(0.0))
    assert values.dtype == jnp.int8 and np.abs(values).max() == 127
    error = np.abs(np.asarray(values, np.float32) * scale - kernel.at[:, 3].set(0.0))
    assert (error <= np.asarray(scale) * 0.5001).all() and (np.asarray(values)[:, 3] == 0).all()


def test_an_engine_with_eight_bits_acts_and_says_so(description, stored, small):
    plain = PolicyEngine(description, served(description, stored), (1,))
    narrow = PolicyEngine(description, served(description, stored, "int8"), (1,))
    kernels = [x for x in jax.tree.leaves(narrow.weights.params) if x.dtype == jnp.int8]
    assert len(kernels) > 20
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    seen = Observation(images={"front": image, "wrist": image}, instruction="push cube")
    [one], [other] = (each.act([seen]) for each in (plain, narrow))
    check_policy_output(small.ARM, other)
    assert other["score"] == pytest.approx(one["score"], abs=0.5)
    assert narrow.metadata["weights"] == plain.metadata["weights"]
    assert (plain.metadata["weights_format"], narrow.metadata["weights_format"]) == (
        "stored",
        "int8",
    )


@pytest.mark.parametrize("format", ["stored", "bfloat16", "int8"])
def test_random_weights_have_the_shapes_of_real_ones(description, stored, format):
    shapes = description.inputs.batch_shapes(1)
    made = random_weights(description.make_model(), shapes, format)
    real = served(description, stored, format)
    for found, expected in zip(
        jax.tree.leaves_with_path(made.params),
        jax.tree.leaves_with_path(real.params),
        strict=True,
    ):
        assert found[0] == expected[0]
        assert (found[1].shape, found[1].dtype) == (expected[1].shape, expected[1].dtype)
    assert isinstance(made, Weights) and made.bytes == real.bytes


def test_another_format_is_refused_before_anything_is_read(untrained):
    with pytest.raises(ValueError, match="weights: found 'int4', expected one of stored, bfloat16"):
        PolicyEngine.from_checkpoint(untrained / "missing", weights="int4")
