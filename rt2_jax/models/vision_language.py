"""PaLI-X's shape: the tokens of pictures, then those of the text, into one encoder-decoder."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from rt2_jax.models.config import VisionLanguageConfig
from rt2_jax.models.encoder_decoder import Decoder, DecoderCache, Encoder
from rt2_jax.models.layers import FIXED_AXIS, Dense, TokenEmbedder, partitioned
from rt2_jax.models.vit import VisionTransformer

PADDING = 0


class VisionLanguageModule(nn.Module):
    """Pictures and text in, logits of text out (PaLI-X, Chen et al. 2023; RT-2, section 3.1).

    Every picture goes through the vision transformer by itself; all its tokens, linearly mapped,
    stand before the text in the encoder. With several slots each has a learned vector of its own.
    """

    config: VisionLanguageConfig

    def setup(self) -> None:
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        computed = (config.scan_layers, config.remat, config.attention)
        self.vision = VisionTransformer(config.vision, dtype, *computed)
        self.vision_projection = Dense(config.text.embed_dim, ("mlp", "embed"), dtype, True)
        self.token_embedder = TokenEmbedder(config.text.vocab_size, config.text.embed_dim, dtype)
        self.encoder = Encoder(config.text, dtype, *computed)
        self.decoder = Decoder(config.text, dtype, *computed)
        if len(config.image_slots) > 1:
            self.slot_embedding = self.param(
                "slot_embedding",
                partitioned(nn.initializers.normal(1.0), (FIXED_AXIS, "embed")),
                (len(config.image_slots), config.text.embed_dim),
            )

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
            seen, seen_mask = self._see(images, image_mask)
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

    def _see(self, images: jax.Array, image_mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Tokens [B, N * tokens, E] of all slots and their mask bool [B, N * tokens]."""
        config = self.config
        batch, slots = images.shape[0], len(config.image_slots)
        expected = (batch, slots, *config.vision.image_size, 3)
        if images.shape != expected:
            raise ValueError(
                f"images: found shape {images.shape}, expected {expected}: [B, N, H, W, 3] with "
                f"the slots {config.image_slots} at {config.vision.image_size} pixels"
            )
        if images.dtype != jnp.uint8:
            raise TypeError(f"images: found {images.dtype}, expected uint8, 0 to 255")
        if image_mask is None or image_mask.shape != (batch, slots) or image_mask.dtype != bool:
            found = None if image_mask is None else f"{image_mask.dtype} {image_mask.shape}"
            raise ValueError(f"image_mask: found {found}, expected bool {(batch, slots)}")
        tokens = self.vision_projection(self.vision(images.reshape(-1, *expected[2:])))
        tokens = tokens.reshape(batch, slots, config.vision.num_tokens, -1)
        if slots > 1:
            tokens += self.slot_embedding[:, None].astype(tokens.dtype)
        mask = jnp.repeat(image_mask, config.vision.num_tokens, axis=1)
        return tokens.reshape(batch, -1, tokens.shape[-1]), mask
