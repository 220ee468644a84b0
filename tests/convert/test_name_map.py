"""Reading published names: strict, complete, and back again."""

import dataclasses
import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from rt2_jax.convert import (
    decoder_only_map,
    efficientnet_map,
    encoder_decoder_map,
    first_rows,
    paligemma_map,
    published_paligemma_names,
    read_parameters,
    siglip_map,
    under,
    vit_map,
    write_parameters,
)
from rt2_jax.models.config import (
    DecoderOnlyConfig,
    DecoderVisionLanguageConfig,
    TextConfig,
    VisionConfig,
    VisionLanguageConfig,
)
from rt2_jax.models.decoder_only import DecoderOnly
from rt2_jax.models.decoder_vision_language import DecoderVisionLanguageModule
from rt2_jax.models.layer_stack import unstack_layers
from rt2_jax.models.published import GEMMA_2B
from rt2_jax.models.published_vision import SIGLIP_SO400M_14
from rt2_jax.models.rt1.config import RT1_35M, EfficientNetConfig, RT1Config
from rt2_jax.models.rt1.efficientnet import EfficientNet
from rt2_jax.models.rt1.module import RT1Module
from rt2_jax.models.vision_language import VisionLanguageModule
from rt2_jax.models.vit import VisionTransformer

VISION = VisionConfig((8, 8), 4, 8, 2, 2, 12)
TEXT = TextConfig(12, 8, 2, 3, 2, 6, 10, relative_bias_per_layer=True)
LANGUAGE = DecoderOnlyConfig(12, 8, 2, 4, 2, 4, 10, tie_embeddings=False)
NET = EfficientNetConfig((64, 64), width=0.25, depth=0.5, norm="frozen_batch")

TOKENS = jax.ShapeDtypeStruct((1, 3), jnp.int32)
WHOLE = DecoderVisionLanguageConfig(VISION, LANGUAGE)
PALIGEMMA = (paligemma_map(WHOLE), DecoderVisionLanguageModule(WHOLE))
PICTURES = (
    jax.ShapeDtypeStruct((1, 1, 8, 8, 3), jnp.uint8),
    jax.ShapeDtypeStruct((1, 1), jnp.bool_),
)
MODELS = {
    "paligemma": (*PALIGEMMA, (*PICTURES, TOKENS, TOKENS)),
    "encoder-decoder": (
        encoder_decoder_map(TEXT),
        VisionLanguageModule(VisionLanguageConfig(VISION, TEXT)),
        (None, None, TOKENS, TOKENS),
    ),
    "decoder-only": (decoder_only_map(LANGUAGE), DecoderOnly(LANGUAGE), (TOKENS,)),
    "vit": (
        vit_map(VISION),
        VisionTransformer(VISION, jnp.float32, True),
        (jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.uint8),),
    ),
    "siglip": (
        siglip_map(VISION),
        VisionTransformer(VISION, jnp.float32, True),
        (jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.uint8),),
    ),
    "efficientnet": (
        efficientnet_map(NET),
        EfficientNet(NET, jnp.float32),
        (jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8), None),
    ),
}


def arrays_of(entries):
    draw = np.random.default_rng(0)
    return {entry.name: draw.normal(size=entry.shape).astype(np.float32) for entry in entries}


def shapes_of(module, *inputs):
    """Of the parameters of a new model, by path."""
    boxed = jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]
    flat = flatten_dict(boxed, is_leaf=lambda _, leaf: hasattr(leaf, "names"))
    return {path: box.value.shape for path, box in flat.items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_map_makes_exactly_the_tree_of_the_model(name):
    entries, module, inputs = MODELS[name]
    params = flatten_dict(read_parameters(entries, arrays_of(entries)))
    found = {path: leaf.shape for path, leaf in params.items()}
    assert found == shapes_of(module, *inputs)
    assert {leaf.dtype for leaf in params.values()} == {np.dtype(np.float32)}


def test_parts_from_several_files_make_a_whole_model():
    vision = under(vit_map(VISION), path=("vision",))
    pictures = (*PICTURES, TOKENS, TOKENS)
    wanted = shapes_of(VisionLanguageModule(VisionLanguageConfig(VISION, TEXT)), *pictures)
    found = {entry.path for entry in (*vision, *encoder_decoder_map(TEXT)) if entry.path}
    assert {path for path in wanted if path not in found} == {
        ("vision_projection", "kernel"),
        ("vision_projection", "bias"),
    }
    config = RT1Config(NET, image_slots=(("front", 0),), num_layers=1)
    instruction = jax.ShapeDtypeStruct((1, 512), jnp.float32)
    large = jax.ShapeDtypeStruct((1, 1, 64, 64, 3), jnp.uint8)
    init = functools.partial(RT1Module(config).init, num_action_tokens=1)
    wanted = shapes_of(types.SimpleNamespace(init=init), large, PICTURES[1], instruction)
    net = under(efficientnet_map(NET), path=("image_tokenizer", "efficientnet"))
    found = {entry.path for entry in net if entry.path}
    missing = {path for path in wanted if path[:2] == net[0].path[:2]} - found
    assert found <= wanted.keys() and {path[2][:5] for path in missing} == {"film_"}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scan_layers", [True, False])
def test_what_was_read_is_written_back(name, scan_layers):
    entries = MODELS[name][0]
    arrays = arrays_of(entries)
    params = read_parameters(entries, arrays, scan_layers=scan_layers)
    written = write_parameters(entries, params, scan_layers=scan_layers)
    read = {entry.name for entry in entries if entry.path}
    assert written.keys() == read
    assert all(np.array_equal(written[each], arrays[each]) for each in read)


@pytest.mark.parametrize("name", ["encoder-decoder", "decoder-only", "vit"])
def test_layers_written_out_are_those_of_the_stack(name):
    entries = MODELS[name][0]
    arrays = arrays_of(entries)
    stacked = unstack_layers(read_parameters(entries, arrays))
    jax.tree.map(
        np.testing.assert_array_equal,
        stacked,
        read_parameters(entries, arrays, scan_layers=False),
    )


def test_all_that_does_not_fit_stands_in_one_error():
    entries = decoder_only_map(LANGUAGE)
    arrays = arrays_of(entries)
    del arrays["model.layers.1.mlp.up_proj.weight"]
    arrays["model.norm.weight"] = np.zeros(9)
    arrays["model.norm.bias"] = np.zeros(8)
    with pytest.raises(ValueError) as error:
        read_parameters(entries, arrays)
    message = str(error.value)
    assert message.startswith("weights: 3 do not fit the map")
    assert "missing: model.layers.1.mlp.up_proj.weight (10, 8)" in message
    assert "shape: model.norm.weight: found (9,), expected (8,)" in message
    assert "unknown: model.norm.bias (8,)" in message


def test_a_long_error_is_cut_with_its_count():
    with pytest.raises(ValueError, match=r"weights: 21 do not fit(.|\n)*\n  and 1 more$"):
        read_parameters(decoder_only_map(LANGUAGE), {})


def test_a_layer_too_many_is_an_error():
    deeper = DecoderOnlyConfig(12, 8, 3, 4, 2, 4, 10, tie_embeddings=False)
    with pytest.raises(ValueError, match=r"unknown: model\.layers\.2\.input_layernorm"):
        read_parameters(decoder_only_map(LANGUAGE), arrays_of(decoder_only_map(deeper)))


def test_what_is_left_out_is_named():
    entries = under(siglip_map(VISION), "vision_model.")
    arrays = {**arrays_of(entries), "text_model.x": np.zeros(3), "logit_scale": np.zeros(1)}
    read_parameters(entries, arrays, leave_out=("text_model.", "logit_"))
    with pytest.raises(ValueError, match="unknown: logit_scale"):
        read_parameters(entries, arrays, leave_out=("text_model.",))
    with pytest.raises(ValueError, match="no name begins with 'head'"):
        read_parameters(entries, arrays, leave_out=("text_model.", "logit_", "head"))
    with pytest.raises(ValueError, match=r"'vision_model\.post' covers vision_model\.post_layerno"):
        read_parameters(entries, arrays, leave_out=("text_model.", "logit_", "vision_model.post"))


@pytest.mark.parametrize(
    ("entries", "weights"),
    [
        # google/t5-v1_1-xl
        (encoder_decoder_map(TextConfig(32_128, 2048, 24, 24, 32, 64, 5120)), 2_849_757_184),
        # google/gemma-2b
        (decoder_only_map(dataclasses.replace(GEMMA_2B, vocab_size=256_000)), 2_506_172_416),
        # google/paligemma-3b-pt-224
        (
            paligemma_map(
                DecoderVisionLanguageConfig(
                    SIGLIP_SO400M_14, dataclasses.replace(GEMMA_2B, vocab_size=257_216)
                )
            ),
            2_923_466_480,
        ),
        # keras.applications.EfficientNetB3, without the 7 numbers of its picture norm
        (efficientnet_map(RT1_35M.vision), 10_783_535 - 7),
    ],
    ids=["t5-v1_1-xl", "gemma-2b", "paligemma-3b", "efficientnet-b3"],
)
def test_maps_of_published_models_hold_the_published_number_of_weights(entries, weights):
    assert sum(math.prod(entry.shape) for entry in entries if entry.path) == weights


def test_rows_that_were_added_to_an_embedding_are_left_out_on_purpose():
    entries = decoder_only_map(LANGUAGE)
    name, wide = "model.embed_tokens.weight", np.random.default_rng(0).normal(size=(15, 8))
    arrays = {**arrays_of(entries), name: wide}
    with pytest.raises(ValueError, match=r"found \(15, 8\), expected \(12, 8\)"):
        read_parameters(entries, arrays)
    params = read_parameters(entries, first_rows(arrays, name, 12))
    np.testing.assert_allclose(params["token_embedder"]["embedding"], wide[:12], rtol=1e-6)
    with pytest.raises(ValueError, match="found 15 rows, expected 16 or more"):
        first_rows(arrays, name, 16)
    with pytest.raises(KeyError, match="shared: no such array"):
        first_rows(arrays, "shared", 12)


def test_a_copy_must_be_equal():
    entries = encoder_decoder_map(TEXT)
    arrays = arrays_of(entries)
    read_parameters(entries, {**arrays, "encoder.embed_tokens.weight": arrays["shared.weight"]})
    with pytest.raises(ValueError, match=r"not equal: encoder\.embed_tokens\.weight is to be a"):
        read_parameters(entries, {**arrays, "encoder.embed_tokens.weight": np.zeros((12, 8))})


def test_a_tree_of_another_configuration_is_not_written():
    entries = decoder_only_map(LANGUAGE)
    params = read_parameters(entries, arrays_of(entries))
    params["more"] = np.zeros(3)
    del params["logits_dense"]
    params["decoder"]["decoder_norm"]["scale"] = np.zeros(3)
    with pytest.raises(ValueError) as error:
        write_parameters(entries, params)
    assert "missing: logits_dense/kernel for lm_head.weight" in str(error.value)
    assert "shape: decoder/decoder_norm/scale (3,) for model.norm.weight (8,)" in str(error.value)
    assert "unknown: more" in str(error.value)


def test_models_without_a_published_form_are_refused():
    with pytest.raises(ValueError, match="parallel_block True"):
        decoder_only_map(DecoderOnlyConfig(12, 8, 2, 4, 2, 4, 10, parallel_block=True))
    with pytest.raises(ValueError, match="stem='conv'.*, expected"):
        siglip_map(VisionConfig((8, 8), 4, 8, 2, 2, 12, stem="conv"))
    with pytest.raises(ValueError, match="norm: found 'group'"):
        efficientnet_map(EfficientNetConfig((64, 64)))


def test_paligemma_is_read_under_all_its_names():
    entries = PALIGEMMA[0]
    published = arrays_of(entries)
    assert published_paligemma_names(published).keys() == published.keys()
    later = {  # transformers 5 in memory
        name.replace("vision_tower.vision_model.", "model.vision_tower.")
        .replace("multi_modal_projector.", "model.multi_modal_projector.")
        .replace("language_model.model.", "model.language_model.")
        .replace("language_model.lm_head.", "lm_head."): array
        for name, array in published.items()
    }
    assert later.keys() != published.keys()
    params = read_parameters(entries, published_paligemma_names(later))
    assert params.keys() == {"vision", "vision_projection", "language"}
