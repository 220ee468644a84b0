"""T5X's model contract over the vision-language module: losses, scores, predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.partitioning import AxisMetadata
from flax.traverse_util import flatten_dict, unflatten_dict

from rt2_jax.models.config import VisionLanguageConfig
from rt2_jax.models.decoding import greedy_decode
from rt2_jax.models.encoder_decoder import DecoderCache
from rt2_jax.models.losses import (
    ExampleSums,
    MetricSum,
    base_metrics,
    example_sums,
    normalize_weights,
)
from rt2_jax.models.vision_language import VisionLanguageModule

Batch = Mapping[str, jax.Array]
Params = Mapping[str, Any]

FEATURES: Mapping[str, tuple[Any, int]] = {
    "images": (jnp.uint8, 5),
    "image_mask": (jnp.bool_, 2),
    "encoder_input_tokens": (jnp.int32, 2),
    "decoder_input_tokens": (jnp.int32, 2),
    "decoder_target_tokens": (jnp.int32, 2),
    "decoder_loss_weights": (jnp.float32, 2),
}
"""What the model reads of a batch: dtype and number of dimensions."""


class VisionLanguageModel:
    """A vision-language encoder-decoder under T5X's contract (`t5x/models.py`).

    It is a plain object without state: parameters come in with every call.

    Args:
      module: or its configuration.
      optimizer_def: kept for the trainer.
      eos_id: the token that ends a prediction.
      label_smoothing: of the training loss.
      z_loss: coefficient, of the training loss.
      loss_normalizing_factor: see `normalize_weights`. With None the loss is the sum over the
        targets, and whoever accumulates gradients divides by the sum of all weights.
    """

    def __init__(
        self,
        module: VisionLanguageModule | VisionLanguageConfig,
        optimizer_def: Any = None,
        *,
        eos_id: int = 1,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        loss_normalizing_factor: float | str | None = None,
    ) -> None:
        if isinstance(module, VisionLanguageConfig):
            module = VisionLanguageModule(module)
        self.module = module
        self.optimizer_def = optimizer_def
        self.eos_id = eos_id
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss
        self.loss_normalizing_factor = loss_normalizing_factor

    def get_initial_variables(
        self,
        rng: jax.Array,
        input_shapes: Mapping[str, tuple[int, ...]],
        input_types: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Random parameters, and their logical axes as T5X keeps them.

        Args:
          rng: a key.
          input_shapes: global shape of every feature of the batch; others are ignored.
          input_types: dtypes, checked against what the model reads.

        Returns:
          `params`, a tree of float32 arrays, and `params_axes`, the same tree with `<name>_axes:
          AxisMetadata(names)`; `flax.linen.partitioning.get_axis_names` makes PartitionSpecs of it.

        Raises:
          KeyError, ValueError, TypeError: a feature is missing or has a wrong shape or dtype.
        """
        example = {
            name: jax.ShapeDtypeStruct(shape, (input_types or {}).get(name, FEATURES[name][0]))
            for name, shape in input_shapes.items()
            if name in FEATURES
        }
        check_features(example)
        zeros = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in example.items()}
        boxed = self.module.init(rng, *_inputs(zeros))["params"]
        axes = {
            (*path[:-1], f"{path[-1]}_axes"): AxisMetadata(names=box.names)
            for path, box in flatten_dict(boxed, is_leaf=lambda _, x: _is_box(x)).items()
        }
        return {"params": nn.unbox(boxed), "params_axes": unflatten_dict(axes)}

    def loss_fn(
        self, params: Params, batch: Batch, dropout_rng: jax.Array | None
    ) -> tuple[jax.Array, dict[str, MetricSum]]:
        """The training loss, float32, and T5X's metrics. Without a key there is no dropout."""
        check_features(batch)
        weights, divisor = normalize_weights(self.loss_normalizing_factor, batch)
        sums = self.example_sums(params, {**batch, "decoder_loss_weights": weights}, dropout_rng)
        loss = jnp.sum(sums.cross_entropy + sums.z_loss) / divisor
        return loss, base_metrics(sums, batch["decoder_target_tokens"])

    def eval_fn(self, params: Params, batch: Batch) -> tuple[jax.Array, dict[str, MetricSum]]:
        """`loss_fn` without dropout."""
        return self.loss_fn(params, batch, None)

    def example_sums(
        self, params: Params, batch: Batch, dropout_rng: jax.Array | None = None
    ) -> ExampleSums:
        """The parts of the loss of every example, [B]: for accumulation and for each source.

        The batch may have `decoder_accuracy_weights`, float32 [B, L_out]: what counts in `correct`
        where that is not what counts in the loss.
        """
        return example_sums(
            self._compute_logits(params, batch, dropout_rng),
            batch["decoder_target_tokens"],
            batch["decoder_loss_weights"],
            self.z_loss,
            self.label_smoothing,
            batch.get("decoder_accuracy_weights"),
        )

    def score_batch(self, params: Params, batch: Batch) -> jax.Array:
        """Log-probability of each example's weighted targets, float32 [B]; no smoothing, no z."""
        sums = example_sums(
            self._compute_logits(params, batch),
            batch["decoder_target_tokens"],
            batch["decoder_loss_weights"],
        )
        return -sums.cross_entropy

    def predict_batch(
        self, params: Params, batch: Batch, rng: jax.Array | None = None
    ) -> jax.Array:
        """Greedy predictions, int32 [B, L_out]."""
        return self.predict_batch_with_aux(params, batch, rng)[0]

    def predict_batch_with_aux(
        self,
        params: Params,
        batch: Batch,
        rng: jax.Array | None = None,
        token_mask: jax.Array | None = None,
        restart: int = 0,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Greedy predictions as long as `decoder_input_tokens`, whose content is not read.

        Args:
          params: the parameters.
          batch: as in training; targets and weights may be absent.
          rng: not used: greedy decoding draws nothing.
          token_mask: bool [L_out, vocab], which tokens may stand at each place.
          restart: where rows that have ended are written on, see `greedy_decode`.

        Returns:
          int32 [B, L_out], 0 after the end; and `scores`, their log-probabilities, float32 [B].
        """
        check_features(batch, optional=("decoder_target_tokens", "decoder_loss_weights"))
        length = batch["decoder_input_tokens"].shape[1]
        encoded = self._apply(params, *_inputs(batch)[:-1], method="encode")
        begin = jnp.zeros_like(batch["decoder_input_tokens"][:, :1])
        logits, cache = self._apply(params, *encoded, begin, method="decode")

        def decode_step(tokens: jax.Array, cache: DecoderCache) -> tuple[jax.Array, DecoderCache]:
            return self._apply(params, tokens, cache, method="decode_step")

        tokens, scores = greedy_decode(
            decode_step,
            logits[:, 0],
            cache.extended(length),
            length,
            self.eos_id,
            token_mask,
            restart,
        )
        return tokens, {"scores": scores}

    def _compute_logits(
        self, params: Params, batch: Batch, dropout_rng: jax.Array | None = None
    ) -> jax.Array:
        """Logits float32 [B, L_out, vocab] of the targets."""
        check_features(batch)
        rngs = None if dropout_rng is None else {"dropout": dropout_rng}
        enable_dropout = dropout_rng is not None
        return self._apply(params, *_inputs(batch), enable_dropout=enable_dropout, rngs=rngs)

    def _apply(self, params: Params, *inputs: Any, **options: Any) -> Any:
        return self.module.apply({"params": params}, *inputs, **options)


def check_features(batch: Mapping[str, Any], optional: tuple[str, ...] = ()) -> None:
    """Refuses a batch that lacks a feature or has one of a wrong dtype or rank.

    Pictures and their mask are optional together: a batch of text alone has neither.

    Raises:
      KeyError, TypeError, ValueError: the message names the feature.
    """
    if "images" not in batch and "image_mask" not in batch:
        optional = (*optional, "images", "image_mask")
    missing = [name for name in FEATURES if name not in batch and name not in optional]
    if missing:
        raise KeyError(f"batch: missing features {missing}; found {sorted(batch)}")
    for name, (dtype, rank) in FEATURES.items():
        if name not in batch:
            continue
        value = batch[name]
        if value.dtype != dtype:
            raise TypeError(f"batch: {name}: found {value.dtype}, expected {jnp.dtype(dtype)}")
        if len(value.shape) != rank:
            raise ValueError(
                f"batch: {name}: found shape {tuple(value.shape)}, expected {rank} dimensions"
            )


def _inputs(batch: Batch) -> tuple[jax.Array | None, ...]:
    return (
        batch.get("images"),
        batch.get("image_mask"),
        batch["encoder_input_tokens"],
        batch["decoder_input_tokens"],
    )


def _is_box(x: Any) -> bool:
    return isinstance(x, nn.LogicallyPartitioned)
