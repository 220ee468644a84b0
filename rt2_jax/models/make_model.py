"""Which model a configuration describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rt2_jax.models.config import DecoderVisionLanguageConfig, VisionLanguageConfig
from rt2_jax.models.config_json import ModelConfig
from rt2_jax.models.decoder_model import DecoderVisionLanguageModel
from rt2_jax.models.model import TransformerModel, VisionLanguageModel
from rt2_jax.models.rt1.config import RT1Config
from rt2_jax.models.rt1.model import RT1Model

MODELS: Mapping[type[ModelConfig], Any] = {
    RT1Config: RT1Model,
    VisionLanguageConfig: VisionLanguageModel,
    DecoderVisionLanguageConfig: DecoderVisionLanguageModel,
}


def make_model(
    config: ModelConfig,
    optimizer_def: Any = None,
    *,
    action_token_ids: Sequence[int] | None = None,
    **options: Any,
) -> TransformerModel:
    """The model of a configuration.

    Args:
      config: of a whole model.
      optimizer_def: kept for the trainer.
      action_token_ids: the token ids of the levels of an action, for models that write nothing
        else; others know no difference between tokens.
      options: of `TransformerModel`.
    """
    if not config.writes_text:
        options["action_token_ids"] = action_token_ids
    return MODELS[type(config)](config, optimizer_def, **options)
