"""The modules: masks, padding, scanned layers, precision, axis names, other frameworks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import unfreeze
from flax.linen.partitioning import get_axis_names

from rt2_jax.models.layer_stack import stack_layers, unstack_layers
from rt2_jax.models.model import VisionLanguageModel
from rt2_jax.models.vision_language import VisionLanguageModule

T5X_AXES = {"embed", "mlp", "heads", "kv", "joined_kv", "vocab", "layers", "relpos_buckets"}
CLOSE = {"rtol": 2e-4, "atol": 2e-5}


def test_a_text_only_example_equals_the_same_text_without_pictures(logits, config, params, batch):
    hidden = logits(config, params, {**batch, "image_mask": jnp.zeros_like(batch["image_mask"])})
    absent = logits(config, params, {k: v for k, v in batch.items() if not k.startswith("image")})
    np.testing.assert_allclose(hidden, absent, **CLOSE)
    assert not np.allclose(hidden, logits(config, params, batch), atol=1e-2)


def test_a_masked_picture_leaks_nothing(logits, patches, patches_params, make_batch):
    batch = make_batch(patches)
    mask = batch["image_mask"].at[:, 1].set(False)
    other = batch["images"].at[:, 1].set(255 - batch["images"][:, 1])
    batch["image_mask"] = mask
    one = logits(patches, patches_params, batch)
    same = logits(patches, patches_params, {**batch, "images": other})
    np.testing.assert_array_equal(one, same)


def test_the_model_knows_which_slot_a_picture_is_in(logits, patches, patches_params, make_batch):
    batch = make_batch(patches)
    swapped = logits(patches, patches_params, {**batch, "images": batch["images"][:, ::-1]})
    assert not np.allclose(swapped, logits(patches, patches_params, batch), atol=1e-3)


def test_a_row_in_a_batch_equals_the_row_alone(logits, config, params, batch):
    together = logits(config, params, batch)
    for row in range(len(together)):
        alone = logits(config, params, {k: v[row : row + 1] for k, v in batch.items()})
        np.testing.assert_allclose(together[row], alone[0], **CLOSE)


def test_more_padding_changes_nothing(logits, config, params, batch):
    padded = {
        name: jnp.pad(batch[name], ((0, 0), (0, 4)))
        for name in ("encoder_input_tokens", "decoder_input_tokens")
    }
    longer = logits(config, params, {**batch, **padded})[
        :, : batch["decoder_input_tokens"].shape[1]
    ]
    np.testing.assert_allclose(longer, logits(config, params, batch), **CLOSE)


def test_no_target_is_seen_before_its_turn(logits, config, params, batch):
    tokens = batch["decoder_input_tokens"]
    for place in range(1, tokens.shape[1]):
        changed = logits(
            config, params, {**batch, "decoder_input_tokens": tokens.at[:, place].set(7 + place)}
        )
        np.testing.assert_array_equal(changed[:, :place], logits(config, params, batch)[:, :place])


def test_scanned_and_written_out_layers_agree_and_convert_into_each_other(
    logits, config, params, batch
):
    unrolled = dataclasses.replace(config, scan_layers=False)
    apart = unstack_layers(params)
    shapes = {name: leaf.shape for name, leaf in batch.items()}
    fresh = jax.eval_shape(
        lambda rng: VisionLanguageModel(unrolled).get_initial_variables(rng, shapes),
        jax.random.key(0),
    )
    assert jax.tree.map(jnp.shape, apart) == jax.tree.map(jnp.shape, fresh["params"])
    np.testing.assert_allclose(
        logits(unrolled, apart, batch), logits(config, params, batch), **CLOSE
    )
    jax.tree.map(np.testing.assert_array_equal, stack_layers(apart), params)


@pytest.mark.parametrize("scan_layers", [True, False])
def test_every_parameter_has_axes_that_t5x_knows(config, batch, scan_layers):
    model = VisionLanguageModel(dataclasses.replace(config, scan_layers=scan_layers))
    shapes = {name: leaf.shape for name, leaf in batch.items()}
    variables = jax.eval_shape(
        lambda rng: model.get_initial_variables(rng, shapes), jax.random.key(0)
    )
    assert set(variables) == {"params", "params_axes"}
    axes = get_axis_names(variables["params_axes"])

    def check(path, leaf, names):
        assert leaf.dtype == jnp.float32, path
        assert len(names) == leaf.ndim, path
        assert set(names) <= T5X_AXES, path
        assert len(set(names)) == len(names), path

    jax.tree_util.tree_map_with_path(check, variables["params"], unfreeze(axes))


def test_bfloat16_computes_nearly_the_same_and_keeps_float32_at_the_ends(
    logits, patches, patches_params, make_batch
):
    batch = make_batch(patches)
    exact = logits(patches, patches_params, batch)
    rough = logits(dataclasses.replace(patches, dtype="bfloat16"), patches_params, batch)
    assert exact.dtype == rough.dtype == jnp.float32
    assert 1e-4 < np.abs(exact - rough).mean() / exact.std() < 0.05


def test_nnx_wraps_the_module_with_equal_logits(
    in_nnx, logits, patches, patches_params, make_batch
):
    batch = make_batch(patches)
    names = ("images", "image_mask", "encoder_input_tokens", "decoder_input_tokens")
    found = in_nnx(VisionLanguageModule(patches), patches_params, *(batch[name] for name in names))
    np.testing.assert_allclose(found, logits(patches, patches_params, batch), **CLOSE)


def test_dropout_acts_in_training_only(logits, jit, patches, patches_params, make_batch):
    config = dataclasses.replace(patches, text=dataclasses.replace(patches.text, dropout_rate=0.5))
    model, batch = VisionLanguageModel(config), make_batch(patches)
    np.testing.assert_array_equal(
        logits(config, patches_params, batch), logits(patches, patches_params, batch)
    )
    keys = [jax.random.key(seed) for seed in (0, 0, 1)]
    noisy = [jit(model, "loss_fn")(patches_params, batch, key)[0] for key in keys]
    assert noisy[0] == noisy[1] != noisy[2]


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("images", lambda x: x[:, :, :12], ValueError, r"images: found shape .*12.*16, 8"),
        ("images", lambda x: x[:, :1], ValueError, r"images: .*slots .*wrist"),
        ("images", lambda x: x[:, 0], ValueError, r"images: found shape .*\[B, N, H, W, 3\]"),
        ("images", lambda x: x / 255, TypeError, "images: found float32, expected uint8"),
        ("image_mask", lambda x: x[:, :1], ValueError, "image_mask: found bool"),
        ("image_mask", lambda x: x.astype(int), ValueError, "image_mask: found int32"),
        ("image_mask", lambda x: None, ValueError, "image_mask: found None"),
    ],
)
def test_pictures_that_the_model_does_not_take_are_refused(
    logits, patches, patches_params, make_batch, name, change, error, message
):
    batch = make_batch(patches)
    with pytest.raises(error, match=message):
        logits(patches, patches_params, {**batch, name: change(batch[name])})
