"""From the pictures of an example to tokens of a language model's width."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from rt2_jax.models.config import DecoderVisionLanguageConfig, VisionLanguageConfig
from rt2_jax.models.layers import FIXED_AXIS, Dense, partitioned
from rt2_jax.models.vit import VisionTransformer


class PictureReader(nn.Module):
    """The part of a vision-language module that looks at pictures.

    Every picture goes through the vision transformer by itself, and its tokens through one linear
    map. With several slots each has a learned vector of its own.
    """

    config: VisionLanguageConfig | DecoderVisionLanguageConfig

    def setup(self) -> None:
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        computed = (config.scan_layers, config.remat, config.attention)
        self.vision = VisionTransformer(config.vision, dtype, *computed)
        self.vision_projection = Dense(config.text.embed_dim, ("mlp", "embed"), dtype, True)
        if len(config.image_slots) > 1:
            self.slot_embedding = self.param(
                "slot_embedding",
                partitioned(nn.initializers.normal(1.0), (FIXED_AXIS, "embed")),
                (len(config.image_slots), config.text.embed_dim),
            )

    def picture_tokens(
        self, images: jax.Array, image_mask: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """uint8 [B, N, H, W, 3], bool [B, N] -> [B, N * tokens, E], bool [B, N * tokens].

        Raises:
          ValueError, TypeError: pictures or a mask that the configuration does not allow.
        """
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
