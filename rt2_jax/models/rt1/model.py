"""T5X's model contract over RT-1, whose answers are bins and no text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rt2_jax.models.decoding import Decoded, Draw, perturb, repeat_rows
from rt2_jax.models.losses import ExampleSums, example_sums
from rt2_jax.models.model import PICTURES, Batch, Params, TransformerModel, check_features
from rt2_jax.models.rt1.config import RT1Config
from rt2_jax.models.rt1.module import RT1Module


class RT1Model(TransformerModel):
    """RT-1 on the batches that vision-language models train on.

    Its output layer has bins, not pieces of a vocabulary: ids of targets, and of what it predicts,
    are translated. All tokens of an action are predicted at once from what is observed; the
    decoder's input is not read.

    Args:
      module: or its configuration.
      optimizer_def: kept for the trainer.
      action_token_ids: the token ids of bins 0, 1, ...; by default bin i is id i.
      options: as of `TransformerModel`.

    Raises:
      ValueError: there are more action tokens than bins.
    """

    MODULE = RT1Module

    def __init__(
        self,
        module: RT1Module | RT1Config,
        optimizer_def: Any = None,
        *,
        action_token_ids: Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(module, optimizer_def, **options)
        config = self.module.config
        ids = range(config.num_bins) if action_token_ids is None else action_token_ids
        if len(ids) > config.num_bins:
            raise ValueError(
                f"RT1Config.num_bins: found {config.num_bins}, expected {len(ids)} or more, one "
                "for each action token"
            )
        self._ids = np.array(ids, np.int32)
        self._bin_of = np.full(max(ids) + 1, -1, np.int32)
        self._bin_of[self._ids] = np.arange(len(ids))
        instruction: tuple[str, Any] = ("encoder_input_tokens", jnp.int32)
        if config.instruction == "embedding":
            instruction = ("instruction_embedding", jnp.float32)
        self.OBSERVED = {**PICTURES, instruction[0]: (instruction[1], 2)}
        self.INPUTS = {**self.OBSERVED, "decoder_input_tokens": (jnp.int32, 2)}

    def example_sums(
        self, params: Params, batch: Batch, dropout_rng: jax.Array | None = None
    ) -> ExampleSums:
        """As of other models; targets that are no action tokens count for nothing."""
        bins = self._bins(batch["decoder_target_tokens"])
        is_action = (bins >= 0).astype(jnp.float32)
        counted = batch.get("decoder_accuracy_weights")
        return example_sums(
            self._compute_logits(params, batch, dropout_rng),
            jnp.maximum(bins, 0),
            batch["decoder_loss_weights"] * is_action,
            self.z_loss,
            self.label_smoothing,
            None if counted is None else counted * is_action,
        )

    def score_batch(self, params: Params, batch: Batch) -> jax.Array:
        bins = self._bins(batch["decoder_target_tokens"])
        weights = batch["decoder_loss_weights"] * (bins >= 0)
        logits = self._compute_logits(params, batch)
        return -example_sums(logits, jnp.maximum(bins, 0), weights).cross_entropy

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
        """An allowed action token at each place, by itself; `restart`, `stop` mean nothing here."""
        check_features(observed, self.OBSERVED)
        inputs = [observed[name] for name in self.OBSERVED]
        logits = self._apply(params, *inputs, length)[..., : len(self._ids)]
        logits = repeat_rows(logits, 1 if draw is None else draw.count)
        free = jax.nn.log_softmax(logits)
        if token_mask is not None:
            logits = jnp.where(jnp.asarray(token_mask)[:, self._ids], logits, -jnp.inf)
        log_probs = jax.nn.log_softmax(logits)
        prefer = jax.vmap(perturb(draw, len(logits), logits.shape[-1]), (1, 0), 1)
        best = jnp.argmax(prefer(log_probs, jnp.arange(length)), axis=-1)
        scores = (jnp.take_along_axis(x, best[..., None], -1)[..., 0] for x in (log_probs, free))
        return Decoded(jnp.asarray(self._ids)[best], *scores)

    def _inputs(self, batch: Batch) -> list[Any]:
        # The decoder's input gives no more than how many tokens are wanted.
        observed = [batch.get(name) for name in self.OBSERVED]
        return [*observed, batch["decoder_input_tokens"].shape[1]]

    def _bins(self, tokens: jax.Array) -> jax.Array:
        """Token ids -> bins, -1 for what is no action token."""
        known = (tokens >= 0) & (tokens < len(self._bin_of))
        return jnp.where(known, jnp.asarray(self._bin_of)[jnp.where(known, tokens, 0)], -1)
