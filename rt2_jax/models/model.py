"""T5X's model contract over modules: losses, scores, predictions."""

from __future__ import annotations

import abc
import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.partitioning import AxisMetadata
from flax.traverse_util import flatten_dict, unflatten_dict

from rt2_jax.models.decoding import Decoded, Draw, decode, repeat_rows
from rt2_jax.models.layer_stack import unstack_layers
from rt2_jax.models.layers import Dense
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

Features = Mapping[str, tuple[Any, int]]

TARGETS: Features = {
    "decoder_target_tokens": (jnp.int32, 2),
    "decoder_loss_weights": (jnp.float32, 2),
}
PICTURES: Features = {"images": (jnp.uint8, 5), "image_mask": (jnp.bool_, 2)}


class TransformerModel(abc.ABC):
    """A module under T5X's contract (`t5x/models.py`).

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

    OBSERVED: Features
    """What a prediction reads of a batch: dtype and number of dimensions."""
    INPUTS: Features
    """What the module's call reads."""
    MODULE: type[nn.Module]
    """What a configuration is made into."""

    def __init__(
        self,
        module: Any,
        optimizer_def: Any = None,
        *,
        eos_id: int = 1,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        loss_normalizing_factor: float | str | None = None,
    ) -> None:
        self.module = module if isinstance(module, nn.Module) else self.MODULE(module)
        self.optimizer_def = optimizer_def
        self.eos_id = eos_id
        self.label_smoothing = label_smoothing
        self.z_loss = z_loss
        self.loss_normalizing_factor = loss_normalizing_factor

    @abc.abstractmethod
    def generate(
        self,
        params: Params,
        observed: Batch,
        length: int,
        token_mask: jax.Array | None = None,
        restart: int | jax.Array = 0,
        stop: jax.Array | None = None,
        draw: Draw | None = None,
    ) -> Decoded:
        """Predictions from what is observed, which is read once for all answers to it.

        Args:
          params: the parameters.
          observed: the features of `OBSERVED`; others are not read.
          length: tokens to write.
          token_mask: bool [length, vocab], which tokens may stand at each place.
          restart: where rows that have ended are written on, see `decode`.
          stop: tokens that end a row before `restart`, see `decode`.
          draw: how answers are drawn; None takes the likeliest tokens.

        Returns:
          Of every row `draw.count` answers behind each other, or one: [B * count, length].
        """

    def written_out(self) -> Self:
        """The same model over `unstack_layers(params)`: every layer has arrays of its own.

        For decoding it is the faster one, since nothing is taken out of a stack again and again;
        it takes longer to compile.
        """
        if not self.module.config.scan_layers:
            return self
        model = copy.copy(self)
        config = dataclasses.replace(self.module.config, scan_layers=False)
        model.module = type(self.module)(config)
        return model

    @property
    def features(self) -> Features:
        """What training reads of a batch: dtype and number of dimensions."""
        return {**self.INPUTS, **TARGETS}

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
            name: jax.ShapeDtypeStruct(shape, (input_types or {}).get(name, self.INPUTS[name][0]))
            for name, shape in input_shapes.items()
            if name in self.INPUTS
        }
        check_features(example, self.INPUTS)
        zeros = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in example.items()}
        boxed = self.module.init(rng, *self._inputs(zeros))["params"]
        axes = {
            (*path[:-1], f"{path[-1]}_axes"): AxisMetadata(names=box.names)
            for path, box in flatten_dict(boxed, is_leaf=lambda _, x: _is_box(x)).items()
        }
        return {"params": nn.unbox(boxed), "params_axes": unflatten_dict(axes)}

    def abstract_params(self, input_shapes: Mapping[str, tuple[int, ...]]) -> Any:
        """The parameters' shapes and dtypes; no memory is used."""
        return jax.eval_shape(
            lambda: self.get_initial_variables(jax.random.key(0), input_shapes)["params"]
        )

    def dense_layers(
        self, input_shapes: Mapping[str, tuple[int, ...]]
    ) -> frozenset[tuple[str, ...]]:
        """Where the parameters of every `Dense` are, by their paths; no memory is used."""
        found: set[tuple[str, ...]] = set()

        def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if isinstance(context.module, Dense):
                found.add(context.module.path)
            return call(*args, **kwargs)

        with nn.intercept_methods(note):
            self.abstract_params(input_shapes)
        return frozenset(found)

    def loss_fn(
        self, params: Params, batch: Batch, dropout_rng: jax.Array | None
    ) -> tuple[jax.Array, dict[str, MetricSum]]:
        """The training loss, float32, and T5X's metrics. Without a key there is no dropout."""
        check_features(batch, self.features)
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
        """Greedy predictions as long as `decoder_input_tokens`.

        Args:
          params: the parameters.
          batch: as in training; targets and weights may be absent, and of the decoder's input only
            a prefix is read.
          rng: not used: greedy decoding draws nothing.
          token_mask: bool [L, vocab], which tokens may stand at each place.
          restart: where rows that have ended are written on, see `decode`.

        Returns:
          int32 [B, L], 0 after the end, L being that of `decoder_input_tokens`: of a decoder-only
          model that of prompt and answer; and `scores`, their log-probabilities, float32 [B].
        """
        length = batch["decoder_input_tokens"].shape[1]
        written = self.generate(params, batch, length, token_mask, restart)
        return written.tokens, {"scores": jnp.sum(written.log_probs, axis=1)}

    def _compute_logits(
        self, params: Params, batch: Batch, dropout_rng: jax.Array | None = None
    ) -> jax.Array:
        """Logits float32 [B, L_out, vocab] of the targets."""
        check_features(batch, self.features)
        rngs = None if dropout_rng is None else {"dropout": dropout_rng}
        enable_dropout = dropout_rng is not None
        inputs = self._inputs(batch)
        return self._apply(params, *inputs, enable_dropout=enable_dropout, rngs=rngs)

    def _inputs(self, batch: Batch) -> list[jax.Array | None]:
        return [batch.get(name) for name in self.INPUTS]

    def _apply(self, params: Params, *inputs: Any, **options: Any) -> Any:
        return self.module.apply({"params": params}, *inputs, **options)

    def _written_out(self, params: Params) -> Callable[..., Any]:
        """As `_apply` with these parameters, with every layer by itself: for loops over tokens.

        Of scanned layers each step would bring all parameters into the order of the layers first,
        which takes longer than the step.
        """
        model = self.written_out()
        if model is not self:
            params = unstack_layers(params)
        return functools.partial(model.module.apply, {"params": params})


class VisionLanguageModel(TransformerModel):
    """PaLI-X's shape, a vision-language encoder-decoder, under T5X's contract."""

    OBSERVED = {**PICTURES, "encoder_input_tokens": (jnp.int32, 2)}
    INPUTS = {**OBSERVED, "decoder_input_tokens": (jnp.int32, 2)}
    MODULE = VisionLanguageModule

    def generate(
        self,
        params: Params,
        observed: Batch,
        length: int,
        token_mask: jax.Array | None = None,
        restart: int | jax.Array = 0,
        stop: jax.Array | None = None,
        draw: Draw | None = None,
    ) -> Decoded:
        check_features(observed, self.OBSERVED)
        inputs = [observed.get(name) for name in self.OBSERVED]
        encoded = self._apply(params, *inputs, method="encode")
        begin = jnp.zeros((len(encoded[0]), 1), jnp.int32)
        apply, count = self._written_out(params), 1 if draw is None else draw.count
        logits, cache = apply(*encoded, begin, method="decode")
        return decode(
            functools.partial(apply, method="decode_step"),
            repeat_rows(logits[:, 0], count),
            cache.repeated(count).extended(length),
            length,
            self.eos_id,
            token_mask,
            restart,
            stop,
            draw,
        )


def check_features(batch: Mapping[str, Any], features: Features) -> None:
    """Refuses a batch that lacks a feature or has one of a wrong dtype or rank.

    Pictures and their mask are optional together: a batch of text alone has neither.

    Raises:
      KeyError, TypeError, ValueError: the message names the feature.
    """
    optional = () if batch.keys() & PICTURES.keys() else tuple(PICTURES)
    missing = [name for name in features if name not in batch and name not in optional]
    if missing:
        raise KeyError(f"batch: missing features {missing}; found {sorted(batch)}")
    for name, (dtype, rank) in features.items():
        if name not in batch:
            continue
        value = batch[name]
        if value.dtype != dtype:
            raise TypeError(f"batch: {name}: found {value.dtype}, expected {jnp.dtype(dtype)}")
        if len(value.shape) != rank:
            raise ValueError(
                f"batch: {name}: found shape {tuple(value.shape)}, expected {rank} dimensions"
            )


def _is_box(x: Any) -> bool:
    return isinstance(x, nn.LogicallyPartitioned)
