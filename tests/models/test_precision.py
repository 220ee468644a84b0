"""Precision: parameters and what sums up are float32, whatever dtype activations have."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rt2_jax.models.losses import token_cross_entropy
from rt2_jax.models.model import VisionLanguageModel


def test_norms_softmax_logits_and_loss_of_a_vision_language_model_are_float32(
    config, params, batch, rounded
):
    model = VisionLanguageModel(dataclasses.replace(config, dtype="bfloat16"))

    def loss(params):
        return model.loss_fn(params, batch, None)[0]

    assert rounded(loss, params) == set()
    loss, gradients = jax.eval_shape(jax.value_and_grad(loss), params)
    assert {leaf.dtype for leaf in jax.tree.leaves((loss, gradients))} == {jnp.dtype("float32")}


def test_a_loss_of_bfloat16_logits_is_computed_in_float32():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 7)), jnp.bfloat16)
    targets = jnp.ones((2, 3), jnp.int32)
    found = token_cross_entropy(logits, targets, z_loss=1e-4)
    assert [each.dtype for each in found] == [jnp.float32] * 2
    expected = token_cross_entropy(logits.astype(jnp.float32), targets, z_loss=1e-4)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
