"""PaLM-E's and PaliGemma's shape: pictures among the tokens of a decoder-only language model."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rt2_jax.models.config import PADDING, PLACEHOLDER, DecoderVisionLanguageConfig
from rt2_jax.models.decoder_only import DecoderOnly, DecoderOnlyCache
from rt2_jax.models.picture_tokens import PictureReader


class DecoderVisionLanguageModule(PictureReader):
    """Tokens with pictures among them in, logits out (PaLM-E, Driess et al. 2023, section 3).

    A picture is `vision.num_tokens` placeholders anywhere in the prefix, pictures in the order of
    the slots. What belongs to a slot without a picture is padding, and so is 0 in the prefix;
    nothing sees padding and it takes no position. Behind the prefix every place is a token, 0 too,
    as in decoding: what is padding there has no weight, and nothing that has comes after it.
    """

    config: DecoderVisionLanguageConfig

    def setup(self) -> None:
        super().setup()
        config = self.config
        computed = (config.scan_layers, config.remat, config.attention)
        self.language = DecoderOnly(config.text, jnp.dtype(config.dtype), *computed)

    def __call__(
        self,
        images: jax.Array | None,
        image_mask: jax.Array | None,
        decoder_input_tokens: jax.Array,
        decoder_causal_attention: jax.Array,
        enable_dropout: bool = False,
    ) -> jax.Array:
        """Logits float32 [B, L, vocab] of what follows every place.

        Args:
          images: uint8 [B, N, H, W, 3], or None for text alone.
          image_mask: bool [B, N], which slots an example has; None with `images` None.
          decoder_input_tokens: int32 [B, L]; the targets, shifted right.
          decoder_causal_attention: int32 [B, L]; 1 on the prefix.
          enable_dropout: needs the rng "dropout".

        Raises:
          ValueError, TypeError: an argument that the configuration does not allow.
        """
        tokens, prefix = decoder_input_tokens, decoder_causal_attention
        mask = (tokens != PADDING) | (prefix == 0)
        arguments = self._arguments(images, image_mask, tokens, prefix, mask)
        return self.language(**arguments, enable_dropout=enable_dropout)

    def prefill(
        self,
        images: jax.Array | None,
        image_mask: jax.Array | None,
        decoder_input_tokens: jax.Array,
        decoder_causal_attention: jax.Array,
    ) -> tuple[jax.Array, DecoderOnlyCache]:
        """Reads the prefixes of rows, and nothing behind them.

        Returns:
          The logits float32 [B, vocab] of what follows the last token of each prefix, and a cache
          without room: `cache.extended`.
        """
        tokens, prefix = decoder_input_tokens, decoder_causal_attention
        mask = (tokens != PADDING) & (prefix > 0)
        return self.language.prefill(**self._arguments(images, image_mask, tokens, prefix, mask))

    def decode_step(
        self, decoder_input_tokens: jax.Array, cache: DecoderOnlyCache
    ) -> tuple[jax.Array, DecoderOnlyCache]:
        """Logits float32 [B, Q, vocab] of the next Q tokens of each row, and the longer cache."""
        return self.language.decode_step(decoder_input_tokens, cache)

    def _arguments(
        self,
        images: jax.Array | None,
        image_mask: jax.Array | None,
        tokens: jax.Array,
        prefix: jax.Array,
        mask: jax.Array,
    ) -> dict[str, Any]:
        """What `DecoderOnly` reads."""
        places = tokens == PLACEHOLDER
        seen, there = None, jnp.zeros((len(tokens), 1), bool)
        if images is not None:
            seen, there = self.picture_tokens(images, image_mask)
        which = jnp.maximum(jnp.cumsum(places, axis=1) - 1, 0)
        mask &= ~places | jnp.take_along_axis(there, which, axis=1, mode="clip")
        bidirectional = self.config.prefix_attention == "bidirectional"
        return {
            "decoder_input_tokens": jnp.maximum(tokens, PADDING),
            "decoder_causal_attention": prefix if bidirectional else None,
            "decoder_input_mask": mask,
            "image_embeddings": seen,
            "placeholder_mask": places,
        }
