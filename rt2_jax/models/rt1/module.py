"""RT-1: some pictures and an instruction in, logits of all tokens of one action out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rt2_jax.models.rt1.config import RT1Config
from rt2_jax.models.rt1.image_tokenizer import ImageTokenizer
from rt2_jax.models.rt1.instruction import SentenceEncoder
from rt2_jax.models.rt1.transformer import ActionTransformer


class RT1Module(nn.Module):
    """RT-1 (Brohan et al. 2022). There is no cache: an action comes in one pass.

    `encode_instruction`, `encode_images` and `decode` are the parts of a call. A picture's tokens
    depend on it and on the instruction alone, not on its place in the history: a robot can keep
    those of earlier steps (RT-1, section 5.1).
    """

    config: RT1Config

    def setup(self) -> None:
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.image_tokenizer = ImageTokenizer(config, dtype)
        self.transformer = ActionTransformer(config, dtype)
        if config.instruction == "tokens":
            self.sentence_encoder = SentenceEncoder(config, dtype)

    def __call__(
        self,
        images: jax.Array,
        image_mask: jax.Array,
        instruction: jax.Array,
        num_action_tokens: int,
        enable_dropout: bool = False,
    ) -> jax.Array:
        """Logits float32 [B, num_action_tokens, num_bins].

        Args:
          images: uint8 [B, N, H, W, 3], as `config.image_slots` says.
          image_mask: bool [B, N], which of them there are: at the start of an episode there is no
            history. What is not there has no effect; an example needs at least one.
          instruction: as `config.instruction` says: float32 [B, instruction_dim], or int32 [B, L],
            where 0 is padding.
          num_action_tokens: a static number, 1 to `config.action_tokens`.
          enable_dropout: needs the rng "dropout".

        Raises:
          ValueError, TypeError: inputs that the configuration does not allow.
        """
        condition = self.encode_instruction(instruction)
        tokens = self.encode_images(images, condition, enable_dropout)
        return self.decode(tokens, image_mask, num_action_tokens, enable_dropout)

    def encode_instruction(self, instruction: jax.Array) -> jax.Array:
        """The vector [B, instruction_dim] of what `instruction` is."""
        config = self.config
        if config.instruction == "embedding":
            _check(instruction, "instruction", jnp.float32, (None, config.instruction_dim))
            return instruction.astype(config.dtype)
        _check(instruction, "instruction", jnp.int32, (None, None))
        return self.sentence_encoder(instruction)

    def encode_images(
        self, images: jax.Array, condition: jax.Array, enable_dropout: bool = False
    ) -> jax.Array:
        """Tokens [B, n, tokens_per_image, E] of any number of pictures, uint8 [B, n, H, W, 3]."""
        _check(images, "images", jnp.uint8, (len(condition), None, *self.config.image_size, 3))
        count = images.shape[1]
        flat = images.reshape(-1, *images.shape[2:])
        flat = nn.with_logical_constraint(flat, ("batch", None, None, None))
        condition = jnp.repeat(condition, count, axis=0)
        tokens = self.image_tokenizer(flat, condition, not enable_dropout)
        return tokens.reshape(-1, count, *tokens.shape[1:])

    def decode(
        self,
        image_tokens: jax.Array,
        image_mask: jax.Array,
        num_action_tokens: int,
        enable_dropout: bool = False,
    ) -> jax.Array:
        """Logits float32 [B, num_action_tokens, num_bins] from the tokens of all slots."""
        config, batch = self.config, len(image_tokens)
        slots = len(config.image_slots)
        if image_tokens.shape[1] != slots:
            raise ValueError(
                f"images: found {image_tokens.shape[1]} of each example, expected one for each of "
                f"the slots {config.image_slots}"
            )
        _check(image_mask, "image_mask", jnp.bool_, (batch, slots))
        if not 1 <= num_action_tokens <= config.action_tokens:
            raise ValueError(
                f"num_action_tokens: found {num_action_tokens}, expected 1 to "
                f"{config.action_tokens}; RT1Config.action_tokens says for how many there is room"
            )
        tokens = image_tokens.reshape(batch, -1, image_tokens.shape[-1])
        mask = jnp.repeat(image_mask, config.tokens_per_image, axis=1)
        return self.transformer(tokens, mask, num_action_tokens, not enable_dropout)


def _check(value: jax.Array, name: str, dtype: Any, shape: tuple[int | None, ...]) -> None:
    """Refuses an input of another dtype or shape; None in `shape` is any number."""
    if value.dtype != dtype:
        raise TypeError(f"{name}: found {value.dtype}, expected {jnp.dtype(dtype)}")
    fits = [wanted in (None, found) for wanted, found in zip(shape, value.shape, strict=False)]
    if value.ndim != len(shape) or not all(fits):
        expected = ", ".join("any" if side is None else str(side) for side in shape)
        raise ValueError(f"{name}: found shape {value.shape}, expected [{expected}]")
