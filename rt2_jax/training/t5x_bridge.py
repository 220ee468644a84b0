"""Our models and data under real T5X: what its gin files name. Needs T5X; see docs/t5x.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from t5x import models, utils

from rt2_jax.data.t5x_features import (
    IMAGES,
    ImageTextFeatureConverter,
    T5XBatches,
    seqio_vocabulary,
)
from rt2_jax.models.config import VisionLanguageConfig
from rt2_jax.models.model import Batch, Params, VisionLanguageModel
from rt2_jax.training.loop import LoopConfig
from rt2_jax.training.run import prepare
from rt2_jax.training.run_config import RunConfig
from rt2_jax.training.schedules import LearningRate
from rt2_jax.training.value_types import check_types

_OPTIONS = (
    "vocabulary",
    "codec",
    "action_tokens",
    "action_token_corpus",
    "robot_crop",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "action_input_dropout",
    "plan_length",
    "state_fields",
    "state_bins",
    "source_weights",
    "workers",
)
"""What of `RunConfig` says how examples are made."""


class T5XModel(models.BaseTransformerModel):
    """A vision-language model for `t5x.train.train`: our modules, T5X's loss and metrics.

    Args:
      config: the shape of the model.
      optimizer_def: one of T5X's.
      vocabulary: a built-in vocabulary's name, or a SentencePiece file.
      label_smoothing: of the training loss.
      z_loss: coefficient, of the training loss.
      loss_normalizing_factor: T5X's. With None the loss is a sum.
    """

    FEATURE_CONVERTER_CLS = ImageTextFeatureConverter

    def __init__(
        self,
        config: VisionLanguageConfig,
        optimizer_def: Any,
        vocabulary: str = "rt2_8k",
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        loss_normalizing_factor: float | str | None = None,
    ) -> None:
        if not isinstance(config, VisionLanguageConfig):
            raise TypeError(
                f"T5XModel.config: found a {type(config).__name__}, expected a "
                "VisionLanguageConfig: other models have no bridge to T5X yet"
            )
        words = seqio_vocabulary(vocabulary)
        self._model = VisionLanguageModel(config, eos_id=words.eos_id)
        super().__init__(
            module=self._model.module,
            input_vocabulary=words,
            output_vocabulary=words,
            optimizer_def=optimizer_def,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            loss_normalizing_factor=loss_normalizing_factor,
        )

    def get_initial_variables(
        self,
        rng: jax.Array,
        input_shapes: Mapping[str, tuple[int, ...]],
        input_types: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """`params` and `params_axes`, see `VisionLanguageModel.get_initial_variables`."""
        types = None if input_types is None else _ours(input_types)
        return self._model.get_initial_variables(rng, _ours(input_shapes), types)

    def score_batch(
        self, params: Params, batch: Batch, return_intermediates: bool = False
    ) -> jax.Array:
        """Log-probability of each example's weighted targets, float32 [B]."""
        if return_intermediates:
            raise NotImplementedError("return_intermediates: the modules keep none")
        return self._model.score_batch(params, _ours(batch))

    def predict_batch_with_aux(
        self, params: Params, batch: Batch, rng: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Greedy predictions int32 [B, L_out], and their `scores` float32 [B]."""
        return self._model.predict_batch_with_aux(params, _ours(batch), rng)

    def _compute_logits(
        self, params: Params, batch: Batch, dropout_rng: jax.Array | None = None
    ) -> jax.Array:
        return self._model._compute_logits(params, _ours(batch), dropout_rng)


def get_dataset(
    cfg: utils.DatasetConfig,
    shard_id: int,
    num_shards: int,
    feature_converter_cls: Any,
    num_epochs: int | None = None,
    continue_from_last_checkpoint: bool = True,
    *,
    model: VisionLanguageConfig,
    cache_dir: str,
    **options: Any,
) -> T5XBatches:
    """T5X's `get_dataset_fn`: a cached mixture, in the order in which `rt2 train` reads it.

    Args:
      cfg: mixture, split, batch size, seed; `task_feature_lengths` has the lengths of prompts
        (`inputs`) and answers (`targets`).
      shard_id: which part of every batch this is.
      num_shards: into how many they are divided.
      feature_converter_cls: not needed: the batches have the model's features.
      num_epochs: None: the batches have no end.
      continue_from_last_checkpoint: T5X calls `restore` for it.
      model: the shape of the model, for its image slots and sizes.
      cache_dir: what `rt2 data cache` and `rt2 data resolve` wrote.
      **options: of `RunConfig`, how examples are made: those of `_OPTIONS`.

    Raises:
      ValueError: no seed, a number of epochs, packing, or what `prepare` refuses.
      FileNotFoundError: the mixture is not cached or resolved.
    """
    if cfg.seed is None or cfg.pack or not cfg.shuffle or num_epochs is not None:
        raise ValueError(
            f"DatasetConfig: found seed={cfg.seed}, pack={cfg.pack}, shuffle={cfg.shuffle} and "
            f"num_epochs={num_epochs}; expected a seed, no packing, shuffling and no epochs"
        )
    values = {
        "model_dir": "unused",
        "mixture": cfg.mixture_or_task_name,
        "cache_dir": cache_dir,
        "model": model,
        "task_feature_lengths": dict(cfg.task_feature_lengths),
        "global_batch_size": cfg.batch_size,
        "loop": LoopConfig(1),
        "learning_rate": LearningRate(),
        "split": cfg.split,
        "data_seed": cfg.seed,
        **options,
    }
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise ValueError(
            f"get_dataset: found {unknown}, expected some of {', '.join(_OPTIONS)}: all else is "
            "said to T5X"
        )
    check_types(RunConfig, values)
    run = prepare(RunConfig(**values))
    return T5XBatches(
        run.batches(shard_id, num_shards),
        run.rules.loss_weights,
        {**run.examples[0].example(0), "source_id": np.zeros((), np.int32)},
        cfg.batch_size // num_shards,
    )


def _ours(features: Mapping[str, Any]) -> dict[str, Any]:
    """T5X's names -> ours."""
    return {"images" if name == IMAGES else name: each for name, each in features.items()}
