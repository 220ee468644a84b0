"""Greedy predictions, and the explicit cache that they are made with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.models.decoding import decode

EOS = 1
ROOM = 7
VOCAB = 40
INPUTS = ("images", "image_mask", "encoder_input_tokens", "decoder_input_tokens")
CLOSE = {"rtol": 2e-4, "atol": 2e-5}


@pytest.fixture(scope="session")
def encoded(apply, config, params, batch):
    return apply(config, "encode", params, *(batch[name] for name in INPUTS[:-1]))


@pytest.fixture(scope="session")
def full(logits, config, params, batch):
    return logits(config, params, batch)


@pytest.mark.parametrize("chunks", [(1, 1, 1, 1, 1), (2, 3)])
def test_cached_decoding_equals_the_full_pass(apply, config, params, batch, encoded, full, chunks):
    tokens, begin, parts = batch["decoder_input_tokens"], chunks[0], []
    logits, cache = apply(config, "decode", params, *encoded, tokens[:, :begin])
    parts.append(logits)
    cache = cache.extended(ROOM)
    for chunk in chunks[1:]:
        part = tokens[:, begin : begin + chunk]
        logits, cache = apply(config, "decode_step", params, part, cache)
        parts.append(logits)
        begin += chunk
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), full, **CLOSE)
    assert cache.positions.tolist() == [tokens.shape[1]] * len(tokens)


def test_rows_of_a_cache_may_hold_different_numbers_of_tokens(
    apply, config, params, batch, encoded, full
):
    tokens = batch["decoder_input_tokens"]
    held = jnp.array([1, 2, 2])
    _, cache = apply(config, "decode", params, *encoded, tokens[:, :2])
    cache = cache.extended(ROOM).replace(positions=held)
    rows = jnp.arange(len(tokens))
    logits, cache = apply(config, "decode_step", params, tokens[rows, held][:, None], cache)
    np.testing.assert_allclose(logits[:, 0], full[rows, held], **CLOSE)
    assert cache.positions.tolist() == [2, 3, 3]


@pytest.fixture(scope="session")
def predict(jit, model, params, batch):
    """`predict(allowed)`: predictions and scores; `allowed` are the tokens of each place."""
    length, vocab = batch["decoder_input_tokens"].shape[1], model.module.config.text.vocab_size

    def predict(allowed):
        mask = np.zeros((length, vocab), bool)
        for place, tokens in enumerate(allowed):
            mask[place, list(tokens)] = True
        tokens, aux = jit(model, "predict_batch_with_aux")(params, batch, token_mask=mask)
        return np.asarray(tokens), np.asarray(aux["scores"])

    return predict


def test_greedy_predictions_are_what_step_by_step_argmax_gives(
    logits, predict, config, params, batch
):
    tokens, scores = predict([range(VOCAB)] * 5)
    assert EOS not in tokens, "choose other parameters: after the end nothing is compared"
    shifted = np.concatenate([np.zeros_like(tokens[:, :1]), tokens[:, :-1]], axis=1)
    found = logits(config, params, {**batch, "decoder_input_tokens": jnp.asarray(shifted)})
    np.testing.assert_array_equal(jnp.argmax(found, axis=-1), tokens)
    best = jnp.max(jax.nn.log_softmax(found), axis=-1)
    np.testing.assert_allclose(scores, best.sum(axis=1), rtol=1e-4)


def test_only_allowed_tokens_are_predicted_at_each_place(predict):
    allowed = [{3, 5}, {8}, {9, 11, 12}, {3}, {20, 21}]
    tokens, scores = predict(allowed)
    for place, expected in enumerate(allowed):
        assert set(tokens[:, place]) <= expected
    assert np.isfinite(scores).all()


def test_after_the_end_comes_padding_that_costs_nothing(predict):
    tokens, scores = predict([{7}, {7}, {EOS}, {9}, {9}])
    assert tokens.tolist() == [[7, 7, EOS, 0, 0]] * len(tokens)
    np.testing.assert_allclose(scores, 0, atol=1e-6)


def test_predictions_need_neither_a_mask_nor_targets(jit, predict, model, params, batch):
    inputs = {name: batch[name] for name in INPUTS}
    tokens = jit(model, "predict_batch")(params, inputs)
    np.testing.assert_array_equal(tokens, predict([range(VOCAB)] * 5)[0])


def test_a_mask_of_another_shape_is_refused(jit, model, params, batch):
    with pytest.raises(ValueError, match=r"token_mask: found shape \(2, 3\), expected \(5, 40\)"):
        jit(model, "predict_batch_with_aux")(params, batch, token_mask=jnp.ones((2, 3), bool))


def test_a_cache_without_room_is_refused(apply, config, params, batch, encoded):
    begin = batch["decoder_input_tokens"][:, :1]
    logits, cache = apply(config, "decode", params, *encoded, begin)
    with pytest.raises(ValueError, match="found room for 1 tokens, expected 5 or more"):
        decode(lambda *_: pytest.fail("a step ran"), logits[:, 0], cache, 5, EOS)


def test_a_cache_can_be_forked(apply, config, params, batch, encoded):
    begin = batch["decoder_input_tokens"][:, :1]
    cache = apply(config, "decode", params, *encoded, begin)[1].extended(ROOM)

    def step(tokens, cache):
        return apply(config, "decode_step", params, tokens, cache)

    kept = jax.tree.map(np.array, cache)
    one = step(begin + 2, cache)[0]
    assert not np.allclose(step(begin + 9, cache)[0], one, atol=1e-3)
    np.testing.assert_array_equal(step(begin + 2, cache)[0], one)
    jax.tree.map(np.testing.assert_array_equal, cache, kept)
