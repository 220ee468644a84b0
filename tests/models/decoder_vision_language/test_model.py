"""The contract of models that read pictures, prompt and answer as one row."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rt2_jax.models.config_json import config_from_json, config_to_json
from rt2_jax.models.decoder_model import DecoderVisionLanguageModel
from rt2_jax.models.decoder_vision_language import DecoderVisionLanguageModule
from rt2_jax.models.layer_stack import stack_layers, unstack_layers

CLOSE = {"rtol": 2e-4, "atol": 2e-5}
ANSWER = 5


def answers(logits):
    return np.asarray(logits)[:, -ANSWER:]


@pytest.fixture
def batch(config, make_batch):
    return make_batch(config)


def test_a_prediction_from_the_prefix_is_step_by_step_argmax_of_the_whole_row(run, batch, model):
    prefix = batch["decoder_target_tokens"].shape[1] - ANSWER
    observed = {
        **{name: batch[name] for name in ("images", "image_mask")},
        **{
            name: batch[name][:, : prefix + 1]
            for name in ("decoder_input_tokens", "decoder_causal_attention")
        },
    }
    tokens, scores = run("generate", observed, length=ANSWER)[:2]
    found, total = batch, 0.0
    done = np.zeros(len(tokens), bool)
    for place in range(ANSWER):
        log_probs = np.array(jax.nn.log_softmax(run("_compute_logits", found)))[:, prefix + place]
        best = np.where(done, 0, log_probs.argmax(axis=1))
        np.testing.assert_array_equal(tokens[:, place], best)
        total = total + np.where(done, 0, log_probs.max(axis=1))
        done |= best == model.eos_id
        if place + 1 < ANSWER:
            inputs = found["decoder_input_tokens"].at[:, prefix + 1 + place].set(best)
            found = {**found, "decoder_input_tokens": inputs}
    np.testing.assert_allclose(scores.sum(axis=-1), total, **CLOSE)
    # A whole row says the same: what stands behind its prefix is not read.
    whole, aux = run("predict_batch_with_aux", batch)
    np.testing.assert_array_equal(whole[:, :ANSWER], tokens)


def test_rows_of_different_prompts_give_what_they_give_alone(config, run, make_batch):
    batch = make_batch(config, seed=1, prompts=[1, 6, 2])
    together = answers(run("_compute_logits", batch))
    for row in range(3):
        alone = {name: value[row : row + 1] for name, value in batch.items()}
        found = answers(run("_compute_logits", alone))
        np.testing.assert_allclose(found[0], together[row], **CLOSE)


def test_more_padding_before_a_prompt_changes_nothing(config, run, make_batch):
    prompts = [3, 5, 1]
    tight, wide = (make_batch(config, prompts=prompts, room=room) for room in (6, 9))
    found, expected = (answers(run("_compute_logits", each)) for each in (wide, tight))
    np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize("seed", range(3))
def test_no_target_leaks_into_its_past(config, run, make_batch, seed):
    """On random lengths: another token behind a place changes nothing before it."""
    draw = np.random.default_rng(seed)
    prompts = draw.integers(1, 7, 3).tolist()
    batch = make_batch(config, seed=seed, prompts=prompts)
    before = answers(run("_compute_logits", batch))
    for place in range(1, ANSWER):
        at = batch["decoder_input_tokens"].shape[1] - ANSWER + place
        changed = batch["decoder_input_tokens"].at[:, at].set(17)
        after = answers(run("_compute_logits", {**batch, "decoder_input_tokens": changed}))
        np.testing.assert_allclose(after[:, :place], before[:, :place], **CLOSE)
        assert np.abs(after[:, place:] - before[:, place:]).max() > 1e-3


def test_gradients_reach_no_place_that_comes_later_and_no_padding(config, params, make_batch):
    """Through the embeddings of tokens, on rows of random length."""
    batch = make_batch(config, rows=2, seed=5, prompts=[2, 5])
    module = DecoderVisionLanguageModule(config)
    tokens = batch["decoder_input_tokens"]
    length = tokens.shape[1]
    prefix = length - ANSWER
    # Every place gets an embedding of its own: ids 0 to 2 L - 1, of a table made for the purpose.
    own = jnp.arange(tokens.size).reshape(tokens.shape)
    table = params["language"]["token_embedder"]["embedding"]
    rows = table[jnp.maximum(tokens, 0)].reshape(tokens.size, -1)

    def logits_at(rows, place):
        def embed(next_fun, args, kwargs, context):
            if context.method_name == "__call__" and context.module.name == "token_embedder":
                return rows[own].astype(jnp.float32)
            return next_fun(*args, **kwargs)

        with nn.intercept_methods(embed):
            out = module.apply(
                {"params": params},
                batch["images"],
                batch["image_mask"],
                tokens,
                batch["decoder_causal_attention"],
            )
        return jnp.sum(out[:, place])

    gradient = jax.jit(jax.grad(logits_at))
    for place in (prefix, length - 2):
        reached = np.abs(gradient(rows, place)).sum(axis=1).reshape(tokens.shape)
        assert not reached[:, place + 1 :].any()
        padding = np.asarray((tokens == 0) & (batch["decoder_causal_attention"] > 0))
        assert not reached[padding].any()
        assert (reached[:, place] > 0).all()
        words = np.asarray(tokens > 0) & (np.arange(length) <= place)
        assert (reached[words] > 0).all()


def test_an_absent_picture_leaks_nothing(run, batch):
    masked = {**batch, "image_mask": jnp.zeros_like(batch["image_mask"])}
    other = {**masked, "images": 255 - masked["images"]}
    found, expected = (answers(run("_compute_logits", each)) for each in (other, masked))
    np.testing.assert_array_equal(found, expected)
    text = {name: value for name, value in masked.items() if not name.startswith("image")}
    np.testing.assert_allclose(answers(run("_compute_logits", text)), expected, **CLOSE)


def test_every_picture_is_seen_in_its_slot(run, batch):
    batch = {**batch, "image_mask": jnp.ones_like(batch["image_mask"])}
    before = answers(run("_compute_logits", batch))
    for slot in range(2):
        images = batch["images"].at[:, slot].set(255 - batch["images"][:, slot])
        after = answers(run("_compute_logits", {**batch, "images": images}))
        assert (np.abs(after - before).max(axis=(1, 2)) > 1e-4).all()
    swapped = {**batch, "images": batch["images"][:, ::-1]}
    assert np.abs(answers(run("_compute_logits", swapped)) - before).max() > 1e-4


def test_only_a_bidirectional_prefix_sees_what_comes_later_in_it(config, run, batch):
    """The first word's features reach the first logits; a later word changes them or not."""
    batch = {**batch, "image_mask": jnp.zeros_like(batch["image_mask"])}
    tokens, prefix = batch["decoder_input_tokens"], -ANSWER
    changed = tokens.at[:, prefix].set(tokens[:, prefix] % 20 + 3)
    row = 1  # its first word stands before the pictures' places
    first = int(np.argmax(np.asarray(tokens[row]) > 0))
    before = np.asarray(run("_compute_logits", batch))[row, first]
    after = np.asarray(run("_compute_logits", {**batch, "decoder_input_tokens": changed}))
    same = np.allclose(after[row, first], before, **CLOSE)
    assert same == (config.prefix_attention == "causal")


def test_every_parameter_learns_and_the_loss_counts_answers_only(params, model, run, batch):
    batch = {**batch, "image_mask": jnp.ones_like(batch["image_mask"])}
    loss, gradients = jax.jit(
        jax.value_and_grad(lambda params: model.loss_fn(params, batch, None)[0])
    )(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients))
    log_probs = np.asarray(jax.nn.log_softmax(run("_compute_logits", batch)))
    targets = np.maximum(batch["decoder_target_tokens"], 0)
    chosen = np.take_along_axis(log_probs, targets[..., None], axis=2)[..., 0]
    np.testing.assert_allclose(loss, -(chosen * batch["decoder_loss_weights"]).sum(), rtol=1e-4)


def test_scanned_and_written_out_layers_agree_and_convert_into_each_other(
    config, params, run, batch
):
    written = DecoderVisionLanguageModel(dataclasses.replace(config, scan_layers=False))
    unstacked = unstack_layers(params)
    found = jax.jit(written._compute_logits)(unstacked, batch)
    np.testing.assert_allclose(found, run("_compute_logits", batch), **CLOSE)
    back = stack_layers(unstacked)
    assert jax.tree.structure(back) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_nnx_wraps_the_module_with_equal_logits(config, params, run, batch, in_nnx):
    names = ("images", "image_mask", "decoder_input_tokens", "decoder_causal_attention")
    found = in_nnx(DecoderVisionLanguageModule(config), params, *(batch[name] for name in names))
    np.testing.assert_allclose(found, run("_compute_logits", batch), **CLOSE)


def test_the_configuration_survives_json(config):
    assert config_from_json(config_to_json(config)) == config


def test_a_batch_without_its_attention_is_refused(model, params, batch):
    del batch["decoder_causal_attention"]
    with pytest.raises(KeyError, match="missing features .'decoder_causal_attention'."):
        model.loss_fn(params, batch, None)
