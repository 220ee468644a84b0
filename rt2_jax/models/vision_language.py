"""PaLI-X's shape: the tokens of pictures, then those of the text, into one encoder-decoder."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rt2_jax.models.config import PADDING, VisionLanguageConfig
from rt2_jax.models.encoder_decoder import Decoder, DecoderCache, Encoder
from rt2_jax.models.layers import TokenEmbedder
from rt2_jax.models.picture_tokens import PictureReader


class VisionLanguageModule(PictureReader):
    """Pictures and text in, logits of text out (PaLI-X, Chen et al. 2023; RT-2, section 3.1).

    The tokens of all pictures stand before the text in the encoder.
    """

    config: VisionLanguageConfig

    def setup(self) -> None:
        super().setup()
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        computed = (config.scan_layers, config.remat, config.attention)
        self.token_embedder = TokenEmbedder(config.text.vocab_size, config.text.embed_dim, dtype)
        self.encoder = Encoder(config.text, dtype, *computed)
        self.decoder = Decoder(config.text, dtype, *computed)

    def __call__(
        self,
        images: jax.Array | None,
        image_mask: jax.Array | None,
        encoder_input_tokens: jax.Array,
        decoder_input_tokens: jax.Array,
        enable_dropout: bool = False,
    ) -> jax.Array:
        """Logits float32 [B, L_out, vocab] of every target given those before it.

        Args:
          images: uint8 [B, N, H, W, 3], or None for text alone.
          image_mask: bool [B, N], which slots an example has; None with `images` None.
          encoder_input_tokens: int32 [B, L_in]; 0 is padding.
          decoder_input_tokens: int32 [B, L_out]; the targets, shifted right.
          enable_dropout: needs the rng "dropout".

        Raises:
          ValueError, TypeError: pictures that the configuration does not allow.
        """
        encoded, mask = self.encode(images, image_mask, encoder_input_tokens, enable_dropout)
        return self.decode(encoded, mask, decoder_input_tokens, enable_dropout)[0]

    def encode(
        self,
        images: jax.Array | None,
        image_mask: jax.Array | None,
        encoder_input_tokens: jax.Array,
        enable_dropout: bool = False,
    ) -> tuple[jax.Array, jax.Array]:
        """The encoder's output [B, S, E] and its mask bool [B, S], S = N * tokens + L_in."""
        x = self.token_embedder(encoder_input_tokens)
        mask = encoder_input_tokens != PADDING
        if images is not None:
            seen, seen_mask = self.picture_tokens(images, image_mask)
            x = jnp.concatenate([seen, x], axis=1)
            mask = jnp.concatenate([seen_mask, mask], axis=1)
        return self.encoder(x, mask, not enable_dropout), mask

    def decode(
        self,
        encoded: jax.Array,
        encoder_mask: jax.Array,
        decoder_input_tokens: jax.Array,
        enable_dropout: bool = False,
    ) -> tuple[jax.Array, DecoderCache]:
        """Logits of all tokens at once, and a cache that holds just these."""
        return self._decode(
            decoder_input_tokens, encoded, encoder_mask, None, deterministic=not enable_dropout
        )

    def decode_step(
        self, decoder_input_tokens: jax.Array, cache: DecoderCache
    ) -> tuple[jax.Array, DecoderCache]:
        """Logits float32 [B, Q, vocab] of the next Q tokens of each row, and the longer cache.

        The cache must have room for them (`DecoderCache.extended`): positions are only known when
        the step runs, so that what lies beyond its end is lost without a word.
        """
        return self._decode(decoder_input_tokens, None, cache.encoder_mask, cache, True)

    def _decode(
        self,
        tokens: jax.Array,
        encoded: jax.Array | None,
        encoder_mask: jax.Array,
        cache: DecoderCache | None,
        deterministic: bool,
    ) -> tuple[jax.Array, DecoderCache]:
        table = self.token_embedder.embedding if self.config.text.tie_embeddings else None
        x = self.token_embedder(tokens)
        return self.decoder(x, encoded, encoder_mask, cache, table, deterministic)
