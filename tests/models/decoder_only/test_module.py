"""What may see what, placeholders, scanned layers, precision, axis names, other frameworks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.models.decoder_only import DecoderOnly
from rt2_jax.models.layer_stack import stack_layers, unstack_layers

T5X_AXES = {"embed", "mlp", "heads", "kv", "joined_kv", "vocab", "layers", "relpos_buckets"}
CLOSE = {"rtol": 2e-4, "atol": 2e-5}


def draw_rows(seed, count=4, length=7):
    """Prefixes, targets and padding of random lengths; padding before, between and behind."""
    draw = np.random.default_rng(seed)
    kind = np.full((count, length), "padding", object)
    for row in kind:
        ends = np.sort(draw.integers(0, length + 1, 4))
        row[ends[0] : ends[1]] = "prefix"
        row[ends[2] : ends[3]] = "target"
    kind[0] = ["prefix"] * 3 + ["padding"] + ["target"] * 2 + ["padding"]
    return kind


@pytest.mark.parametrize("name", ["palm", "llama"])
def test_no_target_leaks_into_its_past_and_no_padding_leaks_anywhere(configs, make_params, name):
    # With an output layer of its own, so that the table is read as input only.
    config = dataclasses.replace(configs[name], tie_embeddings=False, embedding_scale="none")
    module, params = DecoderOnly(config), make_params(config)
    direction = jnp.asarray(np.random.default_rng(5).normal(size=config.vocab_size), jnp.float32)
    # Every place of every row has a token of its own: the table's gradient is that of the places.
    tokens = jnp.arange(1, 29).reshape(4, 7)

    @jax.jit
    def gradients(table, prefix, mask):
        """Of every place's logits by every place's input: [B, L, B, L]."""

        def outputs(table):
            mine = {**params, "token_embedder": {"embedding": table}}
            return module.apply({"params": mine}, tokens, prefix, mask) @ direction

        return jnp.abs(jax.jacrev(outputs)(table)).sum(axis=-1)[..., tokens]

    for seed in range(3):
        kind = draw_rows(seed)
        mask, prefix = kind != "padding", kind == "prefix"
        table = params["token_embedder"]["embedding"]
        found = np.asarray(gradients(table, prefix.astype(np.int32), mask))
        places = np.arange(kind.shape[1])
        may_see = (places[None] <= places[:, None]) | (prefix[:, :, None] & prefix[:, None])
        may_see &= mask[:, None]
        for row in range(len(kind)):
            others = np.delete(found[row], row, axis=1)
            assert not others.any(), "a row sees another"
            mine = found[row, :, row]
            np.testing.assert_array_equal(mine[mask[row]] > 0, may_see[row][mask[row]])


def test_zeros_are_padding_but_for_the_first_place(apply, configs, make_params):
    config = configs["gemma"]
    params = make_params(config)
    tokens = jnp.array([[0, 5, 6, 0, 0], [0, 9, 0, 4, 3]])
    by_default = apply(config, "__call__", params, tokens)
    mask = jnp.array([[True, True, True, False, False], [True, True, False, True, True]])
    np.testing.assert_array_equal(by_default, apply(config, "__call__", params, tokens, None, mask))
    all_tokens = apply(config, "__call__", params, tokens, None, jnp.ones_like(mask))
    assert not np.allclose(by_default[1, 3:], all_tokens[1, 3:], atol=1e-3)


def test_embeddings_stand_where_the_placeholders_are(apply, configs, make_params, rows):
    config, (tokens, prefix, mask) = configs["gemma"], rows
    params = make_params(config)
    # Two placeholders in each row's prefix, wherever; what stands there are embedded tokens.
    places = np.array([[0, 3], [1, 2], [3, 4]])
    placeholders = np.zeros(tokens.shape, bool)
    np.put_along_axis(placeholders, places, True, axis=1)
    table = np.asarray(params["token_embedder"]["embedding"])
    words = np.take_along_axis(np.asarray(tokens), places, axis=1)
    pictures = table[words] * np.float32(config.embed_dim**0.5)
    hidden = jnp.where(placeholders, 29, tokens)
    found = apply(config, "__call__", params, hidden, prefix, mask, pictures, placeholders)
    expected = apply(config, "__call__", params, tokens, prefix, mask)
    np.testing.assert_allclose(found[mask], expected[mask], **CLOSE)

    first, _ = apply(
        config,
        "prefill",
        params,
        *(part[:, :5] for part in (hidden, prefix, mask)),
        pictures,
        placeholders[:, :5],
    )
    np.testing.assert_allclose(first, expected[jnp.arange(3), jnp.array([4, 2, 4])], **CLOSE)


def test_an_absent_picture_leaks_nothing_and_a_missing_one_is_seen(apply, configs, make_params):
    config = configs["palm"]
    params, draw = make_params(config), np.random.default_rng(2)
    tokens = jnp.array([[3, 7, 7, 7, 7, 5, 6]] * 2)
    placeholders = tokens == 7
    # The second row has no first picture: its two placeholders are padding.
    mask = jnp.ones(tokens.shape, bool).at[1, 1:3].set(False)
    pictures = jnp.asarray(draw.normal(size=(2, 4, config.embed_dim)), jnp.float32)
    inputs = (config, "__call__", params, tokens, None, mask)
    found = apply(*inputs, pictures, placeholders)
    other = apply(*inputs, pictures.at[:, :2].set(jnp.nan), placeholders)
    np.testing.assert_array_equal(found[1, [0, 3, 4, 5, 6]], other[1, [0, 3, 4, 5, 6]])
    assert np.isnan(other[0]).all()
    assert np.isnan(apply(*inputs, pictures[:, :3], placeholders)).all()


@pytest.mark.parametrize("name", ["palm", "gemma"])
def test_scanned_and_written_out_layers_agree_and_convert_into_each_other(
    apply, configs, make_params, rows, name
):
    config = configs[name]
    params, unrolled = make_params(config), DecoderOnly(config, scan_layers=False)
    apart = unstack_layers(params)
    fresh = jax.eval_shape(unrolled.init, jax.random.key(0), rows[0])["params"]
    fresh = jax.tree.map(lambda box: box.value, fresh, is_leaf=lambda x: hasattr(x, "names"))
    assert jax.tree.map(jnp.shape, apart) == jax.tree.map(jnp.shape, fresh)
    logits, cache = jax.jit(functools.partial(unrolled.apply, method="prefill"))(
        {"params": apart}, *rows
    )
    expected, scanned = apply(config, "prefill", params, *rows)
    np.testing.assert_allclose(logits, expected, **CLOSE)
    np.testing.assert_allclose(cache.layers.keys, scanned.layers.keys, **CLOSE)
    step = functools.partial(unrolled.apply, method="decode_step")
    _, longer = jax.eval_shape(step, {"params": apart}, rows[0][:, :1], cache.extended(1))
    assert jax.tree.map(jnp.shape, longer) == jax.tree.map(jnp.shape, cache.extended(1))
    jax.tree.map(np.testing.assert_array_equal, stack_layers(apart), params)


@pytest.mark.parametrize("scan_layers", [True, False])
@pytest.mark.parametrize("name", ["palm", "gemma", "llama", "full"])
def test_every_parameter_has_axes_that_t5x_knows(configs, name, scan_layers):
    module = DecoderOnly(configs[name], scan_layers=scan_layers)
    tokens = jnp.zeros((1, 2), jnp.int32)
    boxed = jax.eval_shape(module.init, jax.random.key(0), tokens)["params"]
    leaves = jax.tree_util.tree_leaves_with_path(boxed, is_leaf=lambda x: hasattr(x, "names"))
    for path, box in leaves:
        assert box.value.dtype == jnp.float32, path
        assert len(box.names) == box.value.ndim, path
        assert set(box.names) <= T5X_AXES, path
        assert len(set(box.names)) == len(box.names), path
    assert len(leaves) >= 10


def test_bfloat16_computes_nearly_the_same_and_ends_in_float32(apply, configs, make_params, rows):
    config = configs["palm"]
    params = make_params(config)
    exact = apply(config, "__call__", params, *rows)
    rough = jax.jit(DecoderOnly(config, jnp.bfloat16).apply)({"params": params}, *rows)
    assert exact.dtype == rough.dtype == jnp.float32
    assert 1e-4 < np.abs(exact - rough).mean() / exact.std() < 0.05


def test_nnx_wraps_the_module_with_equal_logits(apply, configs, make_params, rows, in_nnx):
    config = configs["llama"]
    params = make_params(config)
    found = in_nnx(DecoderOnly(config), params, *rows)
    np.testing.assert_allclose(found, apply(config, "__call__", params, *rows), **CLOSE)


@pytest.mark.parametrize("name", ["palm", "gemma"])
def test_dropout_acts_in_training_only(apply, configs, make_params, rows, name):
    params = make_params(configs[name])
    config = dataclasses.replace(configs[name], dropout_rate=0.5)
    module, expected = DecoderOnly(config), apply(configs[name], "__call__", params, *rows)
    np.testing.assert_array_equal(apply(config, "__call__", params, *rows), expected)

    @jax.jit
    def train(key):
        rngs = {"dropout": key}
        return module.apply({"params": params}, *rows, enable_dropout=True, rngs=rngs)

    noisy = [train(jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert not np.allclose(noisy[0], noisy[2], atol=1e-2)
    assert not np.allclose(noisy[0], expected, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"prefix": jnp.ones((3, 7), jnp.int32)}, ValueError, r"decoder_causal_attention: .*3, 7"),
        ({"prefix": jnp.ones((3, 8), bool)}, TypeError, "decoder_causal_attention: found bool"),
        ({"mask": jnp.ones((3, 8), jnp.int32)}, TypeError, "decoder_input_mask: found int32"),
        ({"pictures": jnp.ones((3, 2, 15))}, ValueError, r"image_embeddings: found shape .*15"),
        ({"pictures": jnp.ones((3, 2, 16))}, ValueError, "placeholder_mask: found None"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(configs, make_params, rows, change, error, message):
    inputs = {"tokens": rows[0], "prefix": rows[1], "mask": rows[2], "pictures": None, **change}
    module, params = DecoderOnly(configs["palm"]), make_params(configs["palm"])
    with pytest.raises(error, match=message):
        jax.eval_shape(module.apply, {"params": params}, *inputs.values())
