"""What an action may depend on; learning; refusals; axis names; other frameworks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from rt2_jax.models.layer_stack import stack_layers
from rt2_jax.models.rt1.config import rt1_tiny
from rt2_jax.models.rt1.module import RT1Module

T5X_AXES = {"embed", "mlp", "heads", "kv", "joined_kv", "vocab", "layers", "relpos_buckets"}
CLOSE = {"rtol": 2e-4, "atol": 2e-5}


@functools.partial(jax.jit, static_argnums=(0, 2), static_argnames="count")
def part(config, params, method, *inputs, **options):
    """What a method of the module gives."""
    return RT1Module(config).apply({"params": params}, *inputs, *options.values(), method=method)


@functools.partial(jax.jit, static_argnums=(0, 4))
def jacobian(config, params, tokens, mask, count):
    """Of every action token's logits by every picture token: [B, A, B, N, T], absolute sums."""
    module = RT1Module(config)
    direction = jnp.asarray(np.random.default_rng(1).normal(size=config.num_bins), jnp.float32)

    def outputs(tokens):
        logits = module.apply({"params": params}, tokens, mask, count, method="decode")
        return logits @ direction

    return jnp.abs(jax.jacrev(outputs)(tokens)).sum(axis=-1)


def draw_tokens(config, rows):
    shape = (rows, len(config.image_slots), config.tokens_per_image, config.embed_dim)
    return jnp.asarray(np.random.default_rng(2).normal(size=shape), jnp.float32)


def test_pixels_of_a_masked_picture_change_nothing(config, logits, make_params, make_inputs):
    params, (images, mask, instruction) = make_params(config), make_inputs(config)
    expected_all = logits(config, params, images, mask, instruction, 3)
    # In the second row even the present picture is missing.
    mask = mask.at[0, 0].set(False).at[1, -1].set(False)
    expected = logits(config, params, images, mask, instruction, 3)
    assert expected.shape == (2, 3, 11)
    other = images.at[0, 0].set(7).at[1, -1].set(200)
    np.testing.assert_array_equal(logits(config, params, other, mask, instruction, 3), expected)
    assert (np.abs(expected - expected_all).max(axis=(1, 2)) > 1e-3).all()


def test_every_action_token_sees_every_present_picture_of_its_row_only(config, make_params):
    slots = len(config.image_slots)
    mask = np.random.default_rng(0).random((6, slots)) < 0.5
    mask[:, -1] |= ~mask.any(axis=1)
    assert not mask[:, -1].all() and not mask.all(axis=1).all()
    tokens = draw_tokens(config, len(mask))
    found = np.asarray(jacobian(config, make_params(config), tokens, mask, 4))
    for row, present in enumerate(mask):
        assert not np.delete(found[row], row, axis=1).any(), "a row sees another"
        expected = np.broadcast_to(present[None, :, None], found[row, :, row].shape)
        np.testing.assert_array_equal(found[row, :, row] > 0, expected)


def test_no_action_token_sees_another(config, make_params, make_inputs):
    params, mask = make_params(config), make_inputs(config)[1][:1]
    tokens, table = draw_tokens(config, 1), params["transformer"]["pos_embedding"]

    @jax.jit
    @jax.jacrev
    def by_position(table):
        mine = {**params, "transformer": {**params["transformer"], "pos_embedding": table}}
        return (
            RT1Module(config)
            .apply({"params": mine}, tokens, mask, 5, method="decode")[0]
            .max(axis=-1)
        )

    reached = np.abs(by_position(table)).sum(axis=-1) > 0
    # Of places: all of the pictures', and the token's own, where its predecessor would stand.
    seen = config.num_image_tokens
    expected = np.zeros((5, seen + 4), bool)
    expected[:, :seen] = True
    expected[range(1, 5), range(seen, seen + 4)] = True
    np.testing.assert_array_equal(reached, expected)


def test_an_instruction_counts_once_film_has_learned(config, logits, make_params, make_inputs):
    params, (images, mask, instruction) = make_params(config), make_inputs(config)
    other = make_inputs(config, seed=1)[2]

    def without_film(path, leaf):
        keys = jax.tree_util.keystr(path)
        return jnp.zeros_like(leaf) if "film" in keys else leaf

    new = jax.tree_util.tree_map_with_path(without_film, params)
    before = [logits(config, new, images, mask, words, 3) for words in (instruction, other)]
    np.testing.assert_array_equal(*before)
    after = [logits(config, params, images, mask, words, 3) for words in (instruction, other)]
    assert (np.abs(after[0] - after[1]).max(axis=(1, 2)) > 1e-3).all()


def test_padding_of_an_instruction_is_not_read(learned, make_params):
    encode = functools.partial(part, learned, make_params(learned), "encode_instruction")
    short = jnp.array([[5, 6, 7], [8, 9, 0], [0, 0, 0]], jnp.int32)
    found = encode(jnp.pad(short, ((0, 0), (0, 3))))
    np.testing.assert_allclose(found, encode(short), **CLOSE)
    assert not np.allclose(found[0], found[1], atol=1e-2)
    assert not found[2].any()


def test_the_tokens_of_a_picture_can_be_kept_for_later_steps(stored, make_params, make_inputs):
    images, _, instruction = make_inputs(stored)
    encode = functools.partial(part, stored, make_params(stored), "encode_images")
    all_at_once = encode(images, instruction)
    one_by_one = [encode(images[:, i : i + 1], instruction) for i in range(images.shape[1])]
    np.testing.assert_allclose(np.concatenate(one_by_one, axis=1), all_at_once, **CLOSE)


def learn(config, params, images, mask, instruction, steps):
    """The losses on these examples with random targets."""
    module, count = RT1Module(config), config.action_tokens
    draw = np.random.default_rng(3)
    targets = jnp.asarray(draw.integers(0, config.num_bins, (len(images), count)))
    optimizer = optax.adam(1e-2)

    def step(carry, _):
        params, state = carry

        def loss(params):
            logits = module.apply({"params": params}, images, mask, instruction, count)
            return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, state)
        return (optax.apply_updates(params, updates), state), value

    @jax.jit
    def train(params):
        return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)[1]

    return train(params).tolist()


def test_random_examples_are_learned_by_heart(learned, make_params, make_inputs):
    config = dataclasses.replace(
        learned,
        image_slots=learned.image_slots[-1:],
        instruction_layers=1,
        num_layers=1,
    )
    images, mask, instruction = make_inputs(config, rows=8)
    # Half of them differ in their instructions only.
    images = images.at[4:].set(images[:4])
    losses = learn(config, make_params(config), images, mask, instruction, steps=60)
    # What does not read the instruction cannot get below log(2), nearly.
    assert losses[0] > 2 and losses[-1] < 0.3, losses[::10]


@pytest.mark.slow
@pytest.mark.parametrize("vocab_size", [0, 50])
def test_the_tiny_one_learns_random_examples_by_heart(make_inputs, vocab_size, full_check):
    if not vocab_size and not full_check:
        pytest.skip("in the full form only: tests/inference/test_stored_instructions.py trains one")
    config = rt1_tiny(vocab_size)
    inputs = make_inputs(config, rows=8 if full_check else 4)
    init = functools.partial(RT1Module(config).init, num_action_tokens=config.action_tokens)
    boxed = jax.jit(init)(jax.random.key(0), *inputs)["params"]
    params = jax.tree.map(lambda x: x.value, boxed, is_leaf=lambda x: hasattr(x, "names"))
    losses = learn(config, params, *inputs, steps=60 if full_check else 40)
    assert 5 < losses[0] < 9
    assert losses[-1] < 0.1, losses[::10]


def test_scanned_and_written_out_layers_agree(learned, make_params, make_inputs):
    scanned, params = dataclasses.replace(learned, scan_layers=True), make_params(learned)
    inputs = draw_tokens(learned, 2), make_inputs(learned)[1]
    expected = part(learned, params, "decode", *inputs, count=3)
    found = part(scanned, stack_layers(params), "decode", *inputs, count=3)
    np.testing.assert_allclose(found, expected, **CLOSE)


def test_every_parameter_has_axes_that_t5x_knows(config, boxed):
    tree = boxed(config)
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "names"))
    for path, box in leaves:
        assert box.value.dtype == jnp.float32, path
        assert len(box.names) == box.value.ndim, path
        assert set(box.names) <= T5X_AXES, path
        assert len(set(box.names)) == len(box.names), path
    assert len(leaves) > 50


def test_bfloat16_computes_nearly_the_same_and_ends_in_float32(
    stored, logits, make_params, make_inputs
):
    params, inputs = make_params(stored), make_inputs(stored)
    exact = logits(stored, params, *inputs, 3)
    rough = logits(dataclasses.replace(stored, dtype="bfloat16"), params, *inputs, 3)
    assert exact.dtype == rough.dtype == jnp.float32
    assert 1e-4 < np.abs(exact - rough).mean() / exact.std() < 0.1


def test_dropout_acts_in_training_only(stored, logits, make_params, make_inputs):
    params, inputs = make_params(stored), make_inputs(stored)
    expected = logits(stored, params, *inputs, 3)

    @jax.jit
    def train(key):
        rngs = {"dropout": key}
        module = RT1Module(stored)
        return module.apply({"params": params}, *inputs, 3, enable_dropout=True, rngs=rngs)

    noisy = [train(jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert not np.allclose(noisy[0], noisy[2], atol=1e-2)
    assert not np.allclose(noisy[0], expected, atol=1e-2)


def test_nnx_wraps_the_module_with_equal_logits(learned, logits, make_params, make_inputs):
    params, inputs = make_params(learned), make_inputs(learned)

    def wrap():
        module = nnx.bridge.ToNNX(RT1Module(learned), rngs=nnx.Rngs(0))
        return nnx.bridge.lazy_init(module, *inputs, 3)

    with nnx.use_eager_sharding(False):
        wrapped = nnx.eval_shape(wrap)
    graph, state, rest = nnx.split(wrapped, nnx.Param, ...)
    assert jax.tree.map(jnp.shape, nnx.to_pure_dict(state)) == jax.tree.map(jnp.shape, params)
    nnx.replace_by_pure_dict(state, params)
    # Nothing is drawn, but the wrapper wants its generator to be real.
    rest = jax.tree.map(
        lambda leaf: jax.random.key(0) if leaf.dtype != jnp.uint32 else jnp.uint32(0), rest
    )
    found = jax.jit(lambda *states: nnx.merge(graph, *states)(*inputs, 3))(state, rest)
    np.testing.assert_allclose(found, logits(learned, params, *inputs, 3), **CLOSE)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": jnp.zeros((2, 3, 20, 13, 3), jnp.uint8)}, ValueError, r"images: .* 20, 12, 3"),
        ({"images": jnp.zeros((2, 3, 20, 12, 3))}, TypeError, "images: found float32"),
        ({"images": jnp.zeros((2, 2, 20, 12, 3), jnp.uint8)}, ValueError, r"images: found 2 of"),
        ({"mask": jnp.ones((2, 2), bool)}, ValueError, r"image_mask: .* expected \[2, 3\]"),
        ({"mask": jnp.ones((2, 3))}, TypeError, "image_mask: found float32, expected bool"),
        ({"instruction": jnp.ones((2, 15))}, ValueError, r"instruction: .* expected \[any, 16\]"),
        ({"instruction": jnp.ones((2, 16), jnp.int32)}, TypeError, "instruction: found int32"),
        ({"count": 6}, ValueError, "num_action_tokens: found 6, expected 1 to 5"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    stored, make_params, make_inputs, change, error, message
):
    images, mask, instruction = make_inputs(stored)
    inputs = {"images": images, "mask": mask, "instruction": instruction, "count": 3, **change}
    call = functools.partial(RT1Module(stored).apply, num_action_tokens=inputs.pop("count"))
    with pytest.raises(error, match=message):
        jax.eval_shape(call, {"params": make_params(stored)}, *inputs.values())
