"""Precision: what sums up is float32, whatever dtype activations have."""

import jax.numpy as jnp
import pytest

from rt2_jax.models.decoder_only import DecoderOnly
from rt2_jax.models.losses import token_cross_entropy


@pytest.mark.parametrize("name", ["palm", "gemma", "llama"])
def test_norms_softmax_logits_and_loss_of_a_decoder_only_model_are_float32(
    name, configs, make_params, rows, rounded
):
    params, module = make_params(configs[name]), DecoderOnly(configs[name], jnp.bfloat16)

    def loss(params):
        logits = module.apply({"params": params}, *rows)
        assert logits.dtype == jnp.float32
        return jnp.mean(token_cross_entropy(logits, rows[0])[0])

    assert rounded(loss, params) == set()
