"""Loss and gradients of every kind of model are the same on every mesh."""

import functools

import jax
import numpy as np
import pytest

from rt2_jax.data.model_inputs import InputSpec
from rt2_jax.models.config import (
    PLACEHOLDER,
    DecoderOnlyConfig,
    DecoderVisionLanguageConfig,
    TextConfig,
    VisionConfig,
    VisionLanguageConfig,
)
from rt2_jax.models.make_model import make_model
from rt2_jax.training.adafactor import Adafactor
from rt2_jax.training.lora import ADAPTERS, BASE, AdaptedModel, LoRA, merge
from rt2_jax.training.mesh import MeshShape, make_mesh
from rt2_jax.training.partitioning import Partitioner
from rt2_jax.training.train_state import train_state_initializer

# These adapters' gradients differ by 2e-4 of themselves between programs that are compiled quickly.
PRECISE = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}

VOCAB, ROWS = 32, 8
VISION = VisionConfig(
    image_size=(8, 8), patch_size=4, embed_dim=16, num_layers=1, num_heads=2, mlp_dim=16
)
LANGUAGE = {
    "vocab_size": VOCAB,
    "embed_dim": 16,
    "num_layers": 1,
    "num_heads": 8,
    "num_kv_heads": 1,
    "head_dim": 4,
    "mlp_dim": 16,
    "norm_scale_plus_one": True,
}
CONFIGS = {
    "palix": VisionLanguageConfig(
        VISION,
        TextConfig(
            vocab_size=VOCAB,
            embed_dim=16,
            encoder_layers=1,
            decoder_layers=1,
            num_heads=8,
            head_dim=2,
            mlp_dim=16,
        ),
    ),
    "palme": DecoderVisionLanguageConfig(
        VISION,
        DecoderOnlyConfig(**LANGUAGE, parallel_block=True, embedding_scale="logits"),
        prefix_attention="causal",
    ),
    "paligemma": DecoderVisionLanguageConfig(
        VISION,
        DecoderOnlyConfig(**LANGUAGE, mlp_activations=("gelu", "linear"), embedding_scale="inputs"),
    ),
}
MESHES = {
    "one": {"data": 1},
    "data": {"data": 8},
    "fsdp": {"data": 1, "fsdp": 8},
    "tensor": {"data": 1, "tensor": 8},
    "mixed": {"data": 2, "fsdp": 2, "tensor": 2},
}


def batch_of(spec):
    """Random features of `ROWS` rows."""
    draw = np.random.default_rng(0)
    batch = {
        name: draw.integers(2, VOCAB, shape).astype(np.int32)
        for name, shape in spec.batch_shapes(ROWS).items()
    }
    batch["images"] = draw.integers(0, 256, batch["images"].shape).astype(np.uint8)
    batch["image_mask"] = draw.random(batch["image_mask"].shape) < 0.8
    weights = draw.uniform(0.5, 2, batch["decoder_loss_weights"].shape).astype(np.float32)
    weights[:, : spec.answer_start] = 0
    batch["decoder_loss_weights"] = weights
    if spec.placeholders_per_image:
        prefix = np.arange(weights.shape[1]) <= spec.answer_start
        batch["decoder_causal_attention"] = np.tile(prefix.astype(np.int32), (ROWS, 1))
        batch["decoder_input_tokens"][:, 1 : 1 + spec.placeholders_per_image] = PLACEHOLDER
    return batch


@functools.cache
def loss_and_gradients(family, mesh):
    config, shape = CONFIGS[family], MESHES[mesh]
    model = make_model(config, Adafactor())
    spec = InputSpec(
        config.image_slots,
        config.image_size,
        5,
        4,
        placeholders_per_image=config.placeholders_per_image,
        answer_end=config.writes_text,
    )
    batch = batch_of(spec)
    devices = jax.devices()[: 1 if mesh == "one" else 8]
    partitioner = Partitioner(make_mesh(MeshShape(**shape), devices))
    initializer = train_state_initializer(
        model,
        partitioner,
        {name: value.shape for name, value in batch.items()},
        {name: value.dtype for name, value in batch.items()},
    )
    abstract = initializer.abstract.params
    draw = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: jax.device_put(
            draw.normal(scale=leaf.shape[0] ** -0.5, size=leaf.shape).astype(leaf.dtype),
            leaf.sharding,
        ),
        abstract,
    )
    with partitioner.active():
        value = jax.jit(
            jax.value_and_grad(lambda params, batch: model.loss_fn(params, batch, None)[0]),
            out_shardings=(None, jax.tree.map(lambda leaf: leaf.sharding, abstract)),
        )(params, partitioner.to_devices(batch))
    return jax.device_get(value)


@pytest.mark.parametrize(
    "mesh",
    ["mixed", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tensor", "data", "fsdp"))],
)
@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_eight_devices_give_the_loss_and_the_gradients_of_one(family, mesh, full_check):
    if mesh != "mixed" and not full_check:
        pytest.skip("in the full form only: the mixed mesh has every one of these axes")
    loss, gradients = loss_and_gradients(family, mesh)
    expected, of_one = loss_and_gradients(family, "one")
    np.testing.assert_allclose(loss, expected, rtol=1e-4)

    # Some gradients are 0 but for rounding, such as that of the keys' bias.
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(of_one))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * largest),
        gradients,
        of_one,
    )


def adapted(family, mesh):
    """The model with adapters of all its kernels, a batch, the mesh, and what makes states."""
    config = CONFIGS[family]
    spec = InputSpec(
        config.image_slots,
        config.image_size,
        5,
        4,
        placeholders_per_image=config.placeholders_per_image,
        answer_end=config.writes_text,
    )
    batch = batch_of(spec)
    inputs = (
        {name: value.shape for name, value in batch.items()},
        {name: value.dtype for name, value in batch.items()},
    )
    lora = LoRA((".*",), rank=2, alpha=4.0)
    model = AdaptedModel(make_model(config, Adafactor()), lora, *inputs)
    devices = jax.devices()[: 1 if mesh == "one" else 8]
    partitioner = Partitioner(make_mesh(MeshShape(**MESHES[mesh]), devices))
    initializer = train_state_initializer(model, partitioner, *inputs, frozen=("base/.*",))
    return model, batch, partitioner, initializer


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_kernel_of_every_kind_of_model_can_have_adapters_on_a_mesh(family):
    model, _, _, initializer = adapted(family, "mixed")
    params = initializer.abstract.params
    names = set(model.layouts)
    assert {"vision_projection/kernel", "vision/layers/mlp/wi/kernel"} <= names
    assert not [name for name in names if name.endswith(("/scale", "/bias"))]
    merged = jax.eval_shape(
        functools.partial(merge, layouts=model.layouts, scale=2.0), params[BASE], params[ADAPTERS]
    )
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), merged, params[BASE])
    held = sum(leaf.size for leaf in jax.tree.leaves(initializer.abstract.param_states))
    assert held < sum(leaf.size for leaf in jax.tree.leaves(params[ADAPTERS])) * 1.5


@pytest.mark.slow
def test_eight_devices_give_the_gradients_of_adapters_that_one_gives():
    found = []
    for mesh in ("one", "mixed"):
        model, batch, partitioner, initializer = adapted("palme", mesh)
        draw = np.random.default_rng(1)
        params = jax.tree.map(
            lambda leaf, draw=draw: jax.device_put(
                draw.normal(scale=leaf.shape[0] ** -0.5, size=leaf.shape).astype(leaf.dtype),
                leaf.sharding,
            ),
            initializer.abstract.params,
        )

        def loss(adapters, base, batch, model=model):
            sums = model.example_sums({BASE: base, ADAPTERS: adapters}, batch)
            return sums.cross_entropy.sum()

        with partitioner.active():
            value = jax.jit(jax.value_and_grad(loss), compiler_options=PRECISE)(
                params[ADAPTERS], params[BASE], partitioner.to_devices(batch)
            )
        found.append(jax.device_get(value))
    (expected, of_one), (value, gradients) = found
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(of_one))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * largest),
        gradients,
        of_one,
    )
