"""T5X's model contract over decoder-only vision-language modules."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from rt2_jax.models.decoder_vision_language import DecoderVisionLanguageModule
from rt2_jax.models.decoding import Decoded, Draw, decode, repeat_rows
from rt2_jax.models.model import PICTURES, Batch, Params, TransformerModel, check_features


class DecoderVisionLanguageModel(TransformerModel):
    """PaLM-E's and PaliGemma's shape under T5X's contract, that of its `DecoderOnlyModel`.

    A row is prompt and answer in one: `decoder_causal_attention` is 1 on the inputs that a
    prediction reads, and targets have weights behind them only. Predictions begin behind the
    prefix. Prompts are best padded in front, so that the answer follows at one place in all rows;
    then `generate` can be given the prefix alone, which is much shorter.
    """

    OBSERVED = {
        **PICTURES,
        "decoder_input_tokens": (jnp.int32, 2),
        "decoder_causal_attention": (jnp.int32, 2),
    }
    INPUTS = OBSERVED
    MODULE = DecoderVisionLanguageModule

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
        logits, cache = self._apply(params, *self._inputs(observed), method="prefill")
        count = 1 if draw is None else draw.count
        return decode(
            functools.partial(self._written_out(params), method="decode_step"),
            repeat_rows(logits, count),
            cache.repeated(count).extended(length),
            length,
            self.eos_id,
            token_mask,
            restart,
            stop,
            draw,
        )
