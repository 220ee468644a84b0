"""T5X's model contract: variables, losses, scores, and what a batch must be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.models.model import VisionLanguageModel


@pytest.fixture(scope="session")
def model(patches):
    return VisionLanguageModel(patches, z_loss=0.1)


@pytest.fixture(scope="session")
def batch(make_batch, patches):
    return make_batch(patches)


@pytest.fixture(scope="session")
def params(patches_params):
    return patches_params


def test_the_loss_is_the_weighted_sum_over_all_targets(jit, logits, model, patches, params, batch):
    loss, metrics = jit(model, "eval_fn")(params, batch)
    found = logits(patches, params, batch)
    log_probs = np.asarray(jax.nn.log_softmax(found))
    log_z = np.asarray(jax.nn.logsumexp(found, axis=-1))
    targets, weights = (
        np.asarray(batch[f"decoder_{name}"]) for name in ("target_tokens", "loss_weights")
    )
    cross_entropy, z_loss, right, count = 0.0, 0.0, 0.0, 0
    for row in range(targets.shape[0]):
        for place in range(targets.shape[1]):
            target, weight = targets[row, place], weights[row, place]
            cross_entropy -= weight * log_probs[row, place, target]
            z_loss += weight * 0.1 * log_z[row, place] ** 2
            right += weight * (log_probs[row, place].argmax() == target)
            count += target > 0
    close = {"rtol": 1e-5}
    np.testing.assert_allclose(loss, cross_entropy + z_loss, **close)
    np.testing.assert_allclose(metrics["cross_ent_loss"].compute(), cross_entropy, **close)
    np.testing.assert_allclose(metrics["z_loss"].compute(), z_loss, **close)
    np.testing.assert_allclose(metrics["accuracy"].compute(), right / weights.sum(), **close)
    per_token = metrics["loss_per_nonpadding_target_token"].compute()
    np.testing.assert_allclose(per_token, (cross_entropy + z_loss) / count, **close)
    scores = jit(model, "score_batch")(params, batch)
    np.testing.assert_allclose(scores.sum(), -cross_entropy, **close)


@pytest.fixture(scope="session")
def gradient(model):
    return jax.jit(jax.grad(lambda params, batch: model.loss_fn(params, batch, None)[0]))


def test_gradients_of_the_rows_add_up_to_the_gradient_of_the_batch(gradient, params, batch):
    weights = batch["decoder_loss_weights"]
    whole = gradient(params, batch)
    rows = [
        gradient(
            params, {**batch, "decoder_loss_weights": weights * (jnp.arange(3) == row)[:, None]}
        )
        for row in range(3)
    ]
    jax.tree.map(
        lambda a, *b: np.testing.assert_allclose(a, sum(b), rtol=2e-3, atol=2e-4), whole, *rows
    )


def test_example_sums_add_up_to_the_metrics_of_the_batch(jit, model, params, batch):
    sums = jit(model, "example_sums")(params, batch)
    metrics = jit(model, "eval_fn")(params, batch)[1]
    accuracy = sums.correct.sum() / sums.weight.sum()
    np.testing.assert_allclose(metrics["accuracy"].compute(), accuracy, rtol=1e-6)
    np.testing.assert_allclose(
        metrics["loss"].compute(), sums.cross_entropy.sum() + sums.z_loss.sum(), rtol=1e-6
    )


def test_every_parameter_learns(gradient, params, batch):
    still = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(params, batch))
        if not np.abs(leaf).max() > 0
    ]
    assert not still


def test_the_optimizer_definition_is_kept(patches):
    marker = object()
    assert VisionLanguageModel(patches, marker).optimizer_def is marker


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda b: b.pop("decoder_target_tokens"), KeyError, "missing.*decoder_target_tokens"),
        (lambda b: b.pop("image_mask"), KeyError, "missing.*image_mask"),
        (
            lambda b: b.update(images=b["images"].astype(jnp.float32)),
            TypeError,
            "images: found float32, expected uint8",
        ),
        (
            lambda b: b.update(encoder_input_tokens=b["encoder_input_tokens"][0]),
            ValueError,
            r"encoder_input_tokens: found shape \(6,\), expected 2 dimensions",
        ),
    ],
)
def test_a_batch_that_is_none_is_refused_by_feature(model, params, batch, change, error, message):
    batch = dict(batch)
    change(batch)
    with pytest.raises(error, match=message):
        model.eval_fn(params, batch)


def test_declared_types_are_checked_before_anything_is_made(model, batch):
    shapes = {name: leaf.shape for name, leaf in batch.items()}
    with pytest.raises(TypeError, match="images: found float32, expected uint8"):
        model.get_initial_variables(jax.random.key(0), shapes, {"images": jnp.float32})


def test_a_batch_of_text_alone_needs_no_pictures(jit, model, params, batch):
    text = {k: v for k, v in batch.items() if not k.startswith("image")}
    hidden = {**batch, "image_mask": jnp.zeros_like(batch["image_mask"])}
    np.testing.assert_allclose(
        jit(model, "score_batch")(params, text),
        jit(model, "score_batch")(params, hidden),
        rtol=2e-4,
    )
