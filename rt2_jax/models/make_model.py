"""Which model a configuration describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rt2_jax.models.config import DecoderVisionLanguageConfig, ModelConfig, VisionLanguageConfig
from rt2_jax.models.decoder_model import DecoderVisionLanguageModel
from rt2_jax.models.model import TransformerModel, VisionLanguageModel

MODELS: Mapping[type[ModelConfig], Any] = {
    VisionLanguageConfig: VisionLanguageModel,
    DecoderVisionLanguageConfig: DecoderVisionLanguageModel,
}


def make_model(config: ModelConfig, optimizer_def: Any = None, **options: Any) -> TransformerModel:
    """The model of a configuration; `options` are those of `TransformerModel`."""
    return MODELS[type(config)](config, optimizer_def, **options)
