"""A model's configuration: plain JSON there and back, and refusals that name the field."""

import copy
import dataclasses
import json

import pytest

from rt2_jax.models.config import TextConfig, tiny_config
from rt2_jax.models.config_json import config_from_json, config_to_json
from rt2_jax.models.published import GEMMA_2B, PALM_8B
from rt2_jax.models.published_vision import VIT_22B


def test_a_configuration_survives_json_text(config):
    text = json.dumps(config_to_json(config))
    assert config_from_json(json.loads(text)) == config


def test_what_older_checkpoints_do_not_say_of_a_vision_transformer_is_what_it_was_then(patches):
    data = config_to_json(patches)
    for name in ("parallel_block", "qk_norm", "qkv_bias", "norm_bias", "norm_centering"):
        del data["vision"][name]
    assert config_from_json(data) == patches
    assert config_from_json(config_to_json(VIT_22B)) == VIT_22B


def test_a_part_alone_survives_json_too(patches):
    assert config_from_json(config_to_json(patches.text)) == patches.text


@pytest.mark.parametrize("published", [PALM_8B, GEMMA_2B])
def test_a_decoder_only_model_survives_json_text(published):
    text = json.dumps(config_to_json(published))
    assert config_from_json(json.loads(text)) == published


def test_a_checkpoint_from_before_a_field_is_read_with_what_was_done_then(patches):
    data = config_to_json(patches)
    del data["remat"], data["attention"]
    assert config_from_json(data) == patches


def test_a_class_outside_the_registry_is_never_made(patches):
    data = config_to_json(patches)
    data["text"]["class"] = "os.system"
    with pytest.raises(ValueError, match=r"model\.text\.class: found 'os\.system', .*TextConfig"):
        config_from_json(data)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda d: d["vision"].pop("mlp_dim"), KeyError, r"model\.vision: missing keys.*mlp_dim"),
        (lambda d: d.update(depth=True), KeyError, "model: .*unknown keys.*depth"),
        (lambda d: d["text"].update(num_heads=True), TypeError, r"model\.text\.num_heads: .*int"),
        (lambda d: d["text"].update(num_heads="8"), TypeError, r"model\.text\.num_heads: .*int"),
        (lambda d: d.update(image_slots=[["front"]]), TypeError, r"model\.image_slots: "),
        (lambda d: d.update(vision=d["text"]), TypeError, r"model\.vision: .*VisionConfig"),
        (lambda d: d["text"].update(dropout_rate=1), ValueError, r"TextConfig\.dropout_rate: .*1"),
    ],
)
def test_json_that_is_no_configuration_is_refused_by_field(patches, change, error, message):
    data = copy.deepcopy(config_to_json(patches))
    change(data)
    with pytest.raises(error, match=message):
        config_from_json(data)


def test_json_that_is_no_object_is_refused():
    with pytest.raises(TypeError, match="model: expected a JSON object, found list"):
        config_from_json([])


def test_only_configurations_are_written():
    with pytest.raises(
        TypeError,
        match="found a object, expected one of DecoderOnlyConfig, DecoderVisionLanguageConfig",
    ):
        config_to_json(object())


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("vision", {"image_size": (18, 8)}, r"image_size: found \(18, 8\).*multiples of.*4"),
        ("vision", {"image_size": (16, 0)}, r"image_size: found \(16, 0\)"),
        ("vision", {"num_heads": 3}, "embed_dim: found 16, expected a multiple of num_heads 3"),
        ("vision", {"embed_dim": 18}, "embed_dim: found 18, expected a multiple of 4"),
        ("vision", {"stem": "resnet"}, "stem: found 'resnet', expected one of patch, conv"),
        ("vision", {"stem": "conv", "patch_size": 1}, "patch_size: found 1, .*power of two"),
        ("text", {"num_heads": 0}, "num_heads: found 0, expected a positive integer"),
        ("text", {"mlp_activations": ("swish",)}, "mlp_activations: .*swish.*silu"),
        ("text", {"relative_buckets": 5}, "relative_buckets: found 5"),
        ("text", {"relative_max_distance": 16}, "relative_max_distance: found 16"),
    ],
)
def test_values_that_make_no_model_are_refused(patches, part, values, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(getattr(patches, part), **values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_kv_heads": 3}, "num_kv_heads: found 3, expected a divisor of num_heads 16"),
        ({"num_kv_heads": 0}, "num_kv_heads: found 0, expected a positive integer"),
        ({"head_dim": 7}, "head_dim: found 7, expected an even number"),
        ({"mlp_activations": ()}, r"DecoderOnlyConfig\.mlp_activations: found \(\)"),
        ({"embedding_scale": "both"}, "embedding_scale: found 'both', expected one of none, inp"),
        ({"tie_embeddings": False}, "embedding_scale: found 'logits' without tie_embeddings"),
        ({"norm_epsilon": 0.0}, "norm_epsilon: found 0.0, expected more than 0"),
        ({"rope_max_wavelength": 1}, "rope_max_wavelength: found 1, expected more than 1"),
        ({"dropout_rate": 1.0}, r"DecoderOnlyConfig\.dropout_rate: found 1.0"),
    ],
)
def test_a_decoder_only_model_that_cannot_be_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PALM_8B, **values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dtype": "float16"}, "dtype: found 'float16', expected one of float32, bfloat16"),
        ({"remat": True}, "remat: found True, expected one of none, full, dots, named"),
        ({"attention": "flash"}, "attention: found 'flash', expected one of xla, fused"),
        ({"image_slots": ()}, r"image_slots: found \(\), expected at least one"),
        ({"image_slots": (("front", 0), ("front", 0))}, "image_slots: .*each once"),
    ],
)
def test_a_vision_language_model_that_cannot_be_is_refused(patches, values, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(patches, **values)


def test_the_tiny_configuration_takes_any_vocabulary():
    assert isinstance(tiny_config(8000).text, TextConfig)
    assert tiny_config(123).text.vocab_size == 123
