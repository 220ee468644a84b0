"""From a picture and an instruction to a few tokens."""

from __future__ import annotations

from typing import Any

import jax
from flax import linen as nn

from rt2_jax.models.layers import FIXED_AXIS, Dense
from rt2_jax.models.rt1.config import RT1Config
from rt2_jax.models.rt1.efficientnet import EfficientNet, Film
from rt2_jax.models.rt1.token_learner import TokenLearner


class ImageTokenizer(nn.Module):
    """EfficientNet, a 1x1 convolution, FiLM once more, TokenLearner (RT-1, section 5.1)."""

    config: RT1Config
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array, condition: jax.Array, deterministic: bool) -> jax.Array:
        """uint8 [P, H, W, 3] by [P, D] -> `dtype` [P, tokens_per_image, E]."""
        config = self.config
        net = EfficientNet(config.vision, self.dtype, name="efficientnet")
        x = net(images, condition, deterministic)
        x = Dense(config.embed_dim, (FIXED_AXIS, "embed"), self.dtype, name="projection")(x)
        x = Film(self.dtype, name="film")(x, condition)
        learner = TokenLearner(
            config.tokens_per_image, config.token_learner_dim, self.dtype, name="token_learner"
        )
        return learner(x.reshape(len(x), -1, config.embed_dim))
