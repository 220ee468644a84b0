"""Against transformers on random weights: golden logits and features that `make golden` wrote.

Weights are made from their Hugging Face names on both sides, and come here through the maps.
"""

import functools
import importlib.util
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.convert import (
    decoder_only_map,
    efficientnet_map,
    encoder_decoder_map,
    paligemma_map,
    published_paligemma_names,
    read_parameters,
    siglip_map,
    vit_map,
    without_class_token,
)
from rt2_jax.convert.hugging_face_vision import CLASS_TOKEN, POSITIONS
from rt2_jax.models.config import (
    PLACEHOLDER,
    DecoderOnlyConfig,
    DecoderVisionLanguageConfig,
    TextConfig,
    VisionConfig,
    VisionLanguageConfig,
)
from rt2_jax.models.decoder_only import DecoderOnly
from rt2_jax.models.decoder_vision_language import DecoderVisionLanguageModule
from rt2_jax.models.rt1.config import EfficientNetConfig
from rt2_jax.models.rt1.efficientnet import EfficientNet
from rt2_jax.models.vision_language import VisionLanguageModule
from rt2_jax.models.vit import VisionTransformer

PARITY = Path(__file__).parents[1] / "parity"
TOLERANCE = 1e-4


def load(name):
    spec = importlib.util.spec_from_file_location(f"parity_{name}", PARITY / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CASES = load("cases")
WEIGHTS = load("random_weights")


def named(*names):
    return [
        pytest.param(
            CASES.CASES[name],
            id=name,
            marks=[pytest.mark.slow] if CASES.CASES[name].slow else [],
        )
        for name in names
    ]


def cases(*families):
    return named(*(name for name, case in CASES.CASES.items() if case.family in families))


def text_config(theirs, per_layer):
    gated = theirs["feed_forward_proj"] == "gated-gelu"
    return TextConfig(
        vocab_size=theirs["vocab_size"],
        embed_dim=theirs["d_model"],
        encoder_layers=theirs["num_layers"],
        decoder_layers=theirs["num_decoder_layers"],
        num_heads=theirs["num_heads"],
        head_dim=theirs["d_kv"],
        mlp_dim=theirs["d_ff"],
        mlp_activations=("gelu", "linear") if gated else (theirs["feed_forward_proj"],),
        tie_embeddings=theirs["tie_word_embeddings"],
        relative_bias_per_layer=per_layer,
    )


def vision_config(theirs):
    return VisionConfig(
        image_size=(theirs["image_size"], theirs["image_size"]),
        patch_size=theirs["patch_size"],
        embed_dim=theirs["hidden_size"],
        num_layers=theirs["num_hidden_layers"],
        num_heads=theirs["num_attention_heads"],
        mlp_dim=theirs["intermediate_size"],
    )


def language_config(theirs):
    gemma = "hidden_activation" in theirs
    return DecoderOnlyConfig(
        vocab_size=theirs["vocab_size"],
        embed_dim=theirs["hidden_size"],
        num_layers=theirs["num_hidden_layers"],
        num_heads=theirs["num_attention_heads"],
        num_kv_heads=theirs["num_key_value_heads"],
        head_dim=theirs["head_dim"],
        mlp_dim=theirs["intermediate_size"],
        mlp_activations=("gelu" if gemma else "silu", "linear"),
        norm_scale_plus_one=gemma,
        norm_epsilon=theirs["rms_norm_eps"],
        embedding_scale="inputs" if gemma else "none",
        tie_embeddings=theirs["tie_word_embeddings"],
        rope_max_wavelength=theirs.get("rope_theta", 10_000.0),
    )


def efficientnet_config(theirs):
    return EfficientNetConfig(
        image_size=(theirs["image_size"], theirs["image_size"]),
        width=theirs["width_coefficient"],
        depth=theirs["depth_coefficient"],
        norm="frozen_batch",
        padding="same" if theirs["depthwise_padding"] else "even",
    )


IN_FULL_ONLY = {
    "umt5_xl": "its layer is that of t5_1_1_xl, its biases for each layer are those of umt5_small",
    "gemma_2b": "it is the language model of paligemma_3b",
}
"""Cases that the short form leaves out, and what covers them there."""


@pytest.fixture(autouse=True)
def left_out(request, full_check):
    case = request.node.callspec.params.get("case") if hasattr(request.node, "callspec") else None
    if case and case.name in IN_FULL_ONLY and not full_check:
        pytest.skip(f"in the full form only: {IN_FULL_ONLY[case.name]}")


@pytest.fixture(scope="module", autouse=True)
def exact_products():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="module")
def golden():
    with np.load(PARITY / "golden.npz") as file:
        return dict(file)


def theirs(golden, case):
    """The arrays of the file that transformers read, by its names; their shapes are the map's."""
    return bytes(golden[f"{case.name}/names"]).decode().split("\n")


def params_of(case, golden, entries, respelled=lambda arrays: arrays):
    """Our tree, of weights made from the names that transformers read."""
    names = theirs(golden, case)
    published = respelled(dict.fromkeys(names))
    known = {entry.name: entry.shape for entry in entries}
    shapes = dict(zip(names, map(known.get, published), strict=True))
    missing = [name for name, shape in shapes.items() if shape is None]
    assert missing == [], "transformers has names that the map does not know"
    arrays = {name: WEIGHTS.weight(name, shape) for name, shape in shapes.items()}
    return read_parameters(entries, respelled(arrays))


def check(found, golden, case, record_property):
    expected = golden[f"{case.name}/output"]
    found = CASES.kept(case, np.asarray(found))
    assert found.shape == expected.shape
    error = np.abs(found - expected).max() / golden[f"{case.name}/largest"]
    print(f"\n{case.name}: largest error {error:.1e} of the scale")
    record_property("error", float(error))
    assert expected.std() > 0.1, "choose other weights: this output says little"
    assert error < TOLERANCE


@functools.partial(jax.jit, static_argnums=(0, 1))
def apply(module, method, params, *inputs):
    return module.apply({"params": params}, *inputs, method=method)


def encoder_decoder(case):
    """Module, map and inputs."""
    config = text_config(case.config, case.family == "umt5")
    # Any vision transformer: without pictures it has no part in it.
    vision = VisionConfig((8, 8), 8, 4, 1, 1, 4)
    read, write = case.lengths
    inputs = case.tokens("encoder", read)
    inputs[1, read * 3 // 4 :] = 0
    outputs = np.pad(case.tokens("decoder", write - 1), ((0, 0), (1, 0)))
    tokens = (jnp.asarray(inputs, jnp.int32), jnp.asarray(outputs, jnp.int32))
    module = VisionLanguageModule(VisionLanguageConfig(vision, config))
    return module, encoder_decoder_map(config), tokens


@pytest.mark.parametrize("case", cases("t5", "umt5"))
def test_logits_of_an_encoder_decoder(case, golden, record_property):
    module, entries, (inputs, outputs) = encoder_decoder(case)
    params = params_of(case, golden, entries)
    found = apply(module, "__call__", params, None, None, inputs, outputs)
    check(found, golden, case, record_property)


@pytest.mark.parametrize("case", named("t5_1_1_small", "umt5_small", "t5_1_1_xl"))
def test_cached_decoding_gives_the_logits_of_the_full_pass(
    case, golden, record_property, full_check
):
    if case.slow and not full_check:
        pytest.skip("in the full form only: the same code at the width of t5_1_1_small, and above")
    module, entries, (inputs, outputs) = encoder_decoder(case)
    params = params_of(case, golden, entries)
    encoded = apply(module, "encode", params, None, None, inputs)
    logits, cache = apply(module, "decode", params, *encoded, outputs[:, :1])
    cache, steps = cache.extended(outputs.shape[1]), [logits]
    for place in range(1, outputs.shape[1]):
        token = outputs[:, place : place + 1]
        logits, cache = apply(module, "decode_step", params, token, cache)
        steps.append(logits)
    check(np.concatenate(steps, axis=1), golden, case, record_property)


@pytest.mark.parametrize("case", cases("siglip", "vit"))
def test_features_of_a_vision_transformer(case, golden, record_property):
    config = vision_config(case.config)
    if case.family == "vit":
        entries = vit_map(config)
        names = theirs(golden, case)
        shapes = {entry.name: entry.shape for entry in entries} | {
            CLASS_TOKEN: (1, 1, config.embed_dim),
            POSITIONS: (1, config.num_tokens + 1, config.embed_dim),
        }
        arrays = {name: WEIGHTS.weight(name, shapes[name]) for name in names}
        params = read_parameters(entries, without_class_token(arrays))
    else:
        params = params_of(case, golden, siglip_map(config))
    module = VisionTransformer(config, jnp.float32, True)
    found = apply(module, "__call__", params, jnp.asarray(case.pictures()))
    check(found, golden, case, record_property)


@pytest.mark.parametrize("case", cases("gemma", "llama"))
def test_logits_of_a_decoder(case, golden, record_property):
    config = language_config(case.config)
    params = params_of(case, golden, decoder_only_map(config))
    tokens = jnp.asarray(case.tokens("tokens", case.lengths[1]), jnp.int32)
    found = apply(DecoderOnly(config), "__call__", params, tokens)
    check(found, golden, case, record_property)


@pytest.mark.parametrize("case", cases("paligemma"))
def test_logits_of_paligemma(case, golden, record_property):
    config = DecoderVisionLanguageConfig(
        vision_config(case.config["vision_config"]), language_config(case.config["text_config"])
    )
    params = params_of(case, golden, paligemma_map(config), published_paligemma_names)
    (prefix, rest), places = case.lengths, config.vision.num_tokens
    tokens = np.pad(
        case.tokens("tokens", prefix + rest), ((0, 0), (places, 0)), constant_values=PLACEHOLDER
    )
    inside = np.broadcast_to(np.arange(tokens.shape[1]) < places + prefix, tokens.shape)
    found = apply(
        DecoderVisionLanguageModule(config),
        "__call__",
        params,
        jnp.asarray(case.pictures()[:, None]),
        jnp.ones((case.rows, 1), bool),
        jnp.asarray(tokens, jnp.int32),
        jnp.asarray(inside, jnp.int32),
    )
    check(found, golden, case, record_property)


@pytest.mark.parametrize("case", cases("efficientnet"))
def test_features_of_efficientnet(case, golden, record_property):
    config = efficientnet_config(case.config)
    params = params_of(case, golden, efficientnet_map(config))
    found = apply(
        EfficientNet(config, jnp.float32), "__call__", params, jnp.asarray(case.pictures()), None
    )
    check(found, golden, case, record_property)


SMALL = ("t5_1_1_small", "umt5_small", "siglip_small", "gemma_small")


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_of_every_layer_counts(name, golden):
    case = CASES.CASES[name]
    if case.family in ("t5", "umt5"):
        module, entries, tokens = encoder_decoder(case)
        inputs = (None, None, *tokens)
    elif case.family == "siglip":
        config = vision_config(case.config)
        module, entries = VisionTransformer(config, jnp.float32, True), siglip_map(config)
        inputs = (jnp.asarray(case.pictures()),)
    else:
        config = language_config(case.config)
        module, entries = DecoderOnly(config), decoder_only_map(config)
        inputs = (jnp.asarray(case.tokens("tokens", case.lengths[1]), jnp.int32),)
    arrays = {entry.name: WEIGHTS.weight(entry.name, entry.shape) for entry in entries}
    for name, array in arrays.items():
        if name.endswith("k_proj.bias"):
            continue  # adds the same to all logits of a query
        changed = read_parameters(entries, {**arrays, name: 1.2 * array})
        found = CASES.kept(case, np.asarray(apply(module, "__call__", changed, *inputs)))
        error = np.abs(found - golden[f"{case.name}/output"]).max()
        assert error > TOLERANCE * golden[f"{case.name}/largest"], name


def test_golden_outputs_come_from_the_pinned_versions(golden):
    made = json.loads(str(golden["made"]))
    lines = (PARITY / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    assert {name: made[name].split("+")[0] for name in ("numpy", "torch", "transformers")} == {
        name: pins[name] for name in ("numpy", "torch", "transformers")
    }


def test_every_case_has_a_golden_output(golden):
    assert {key.split("/")[0] for key in golden} - {"made"} == set(CASES.CASES)


def test_random_weights_are_those_that_the_golden_outputs_were_made_with():
    drawn = WEIGHTS.uniform("a.weight", 100_000)
    assert math.isclose(drawn.std(), 1, rel_tol=0.01) and abs(drawn.mean()) < 0.01
    expected = [-1.2273362, 1.177544, -0.05943881]
    assert np.abs(drawn[:3] - expected).max() < 1e-6
