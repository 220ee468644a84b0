"""A decoder-only language model over tokens and embeddings; its cache is argument and result."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax.ad_checkpoint import checkpoint_name

from rt2_jax.models.config import PADDING, DecoderOnlyConfig
from rt2_jax.models.decoding import repeat_rows
from rt2_jax.models.layer_stack import RESIDUAL, apply_layers
from rt2_jax.models.layers import (
    Attention,
    Dense,
    Mlp,
    RMSNorm,
    TokenEmbedder,
    dropout,
)
from rt2_jax.models.rotary import Rotation, rotation_of
from rt2_jax.models.sharding import constrain, constrain_residual, enter_block


@struct.dataclass
class KeysAndValues:
    """What one layer keeps, or all, stacked: [(layers,) B, places, kv_heads, head_dim] each."""

    keys: jax.Array
    values: jax.Array


@struct.dataclass
class DecoderOnlyCache:
    """What decoding keeps between steps: a plain pytree, to be forked, spliced or thrown away.

    A row's places are those of its prefix, padding included, then one for each further token. Its
    positions count tokens only, so that they don't depend on the padding.

    Attributes:
      layers: keys, already turned by their positions, and values of all layers.
      mask: bool [B, places]; which hold a token.
      used: int32 [B]; how many places each row has taken. Rows may differ.
      positions: int32 [B]; how many tokens each row holds: the position of its next.
      prefix_places: places of the prefix, the same for all rows.
    """

    layers: KeysAndValues
    mask: jax.Array
    used: jax.Array
    positions: jax.Array
    prefix_places: int = struct.field(pytree_node=False)

    @property
    def room(self) -> int:
        """How many tokens have room after the prefix."""
        return self.mask.shape[1] - self.prefix_places

    def repeated(self, count: int) -> DecoderOnlyCache:
        """A cache of `count` rows for each one, behind each other, to be written on apart."""
        return dataclasses.replace(
            self,
            layers=jax.tree.map(lambda leaf: repeat_rows(leaf, count, axis=1), self.layers),
            mask=repeat_rows(self.mask, count),
            used=repeat_rows(self.used, count),
            positions=repeat_rows(self.positions, count),
        )

    def extended(self, length: int) -> DecoderOnlyCache:
        """The same with room for `length` tokens after the prefix."""
        more = (0, length - self.room)
        room = ((0, 0), (0, 0), more, (0, 0), (0, 0))
        layers = KeysAndValues(jnp.pad(self.layers.keys, room), jnp.pad(self.layers.values, room))
        mask = jnp.pad(self.mask, ((0, 0), more))
        return dataclasses.replace(self, layers=layers, mask=mask)


class DecoderOnlyLayer(nn.Module):
    """Self-attention and an MLP, one after the other or side by side."""

    config: DecoderOnlyConfig
    dtype: Any
    attention_implementation: str = "xla"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        cached: KeysAndValues | None,
        write_at: jax.Array | None,
        mask: jax.Array,
        rotation: Rotation,
        deterministic: bool,
    ) -> tuple[jax.Array, KeysAndValues]:
        """Without `cached`, keys and values are those of `x`; with it, they are added.

        Args:
          x: [B, Q, E].
          cached: this layer's, or None.
          write_at: int32 [B, Q], the places of `x` in the cache, or None without one.
          mask: bool [B, 1, Q, K].
          rotation: of `x`, by its positions.
          deterministic: no dropout.

        Returns:
          [B, Q, E], and the layer's part of the cache.
        """
        config, drop = self.config, dropout(self.config.dropout_rate)

        def norm(name: str) -> RMSNorm:
            return RMSNorm(self.dtype, config.norm_epsilon, config.norm_scale_plus_one, name=name)

        mlp = Mlp(
            config.mlp_dim,
            config.mlp_activations,
            self.dtype,
            dropout_rate=config.dropout_rate,
            name="mlp",
        )
        attention = Attention(
            num_heads=config.num_heads,
            head_dim=config.head_dim,
            dtype=self.dtype,
            scaled=True,
            dropout_rate=config.dropout_rate,
            num_kv_heads=config.num_kv_heads,
            implementation=self.attention_implementation,
            name="self_attention",
        )
        name = "layer_norm" if config.parallel_block else "pre_self_attention_layer_norm"
        normed = enter_block(norm(name)(x))
        keys, values = attention.keys_and_values(normed, rotation)
        if cached is not None:
            rows = jnp.arange(len(x))[:, None]
            keys = cached.keys.at[rows, write_at].set(keys)
            values = cached.values.at[rows, write_at].set(values)
        attended = attention(normed, keys, values, mask, None, deterministic, rotation)
        if config.parallel_block:
            # One mask for the sum, as where one product gives both (flaxformer's fused layer).
            added = drop(attended + mlp(normed, deterministic), deterministic)
        else:
            x = checkpoint_name(constrain_residual(x + drop(attended, deterministic)), RESIDUAL)
            normed = enter_block(norm("pre_mlp_layer_norm")(x))
            added = drop(mlp(normed, deterministic), deterministic)
        return constrain_residual(x + added), KeysAndValues(keys, values)


class DecoderOnlyStack(nn.Module):
    """The layers and the last norm, over embeddings."""

    config: DecoderOnlyConfig
    dtype: Any
    scan_layers: bool
    remat: str = "none"
    attention: str = "xla"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        mask: jax.Array,
        cached: KeysAndValues | None,
        write_at: jax.Array | None,
        deterministic: bool,
    ) -> tuple[jax.Array, KeysAndValues]:
        """[B, Q, E] -> [B, Q, E], and keys and values of all layers; see `DecoderOnlyLayer`."""
        config, drop = self.config, dropout(self.config.dropout_rate)
        layers = apply_layers(
            DecoderOnlyLayer,
            {
                "config": config,
                "dtype": self.dtype,
                "attention_implementation": self.attention,
            },
            config.num_layers,
            self.scan_layers,
            self.remat,
        )
        x, kept = layers(
            drop(constrain_residual(x), deterministic),
            cached,
            write_at,
            mask[:, None],
            rotation_of(positions, config.head_dim, config.rope_max_wavelength),
            deterministic,
        )
        norm = RMSNorm(
            self.dtype, config.norm_epsilon, config.norm_scale_plus_one, name="decoder_norm"
        )
        return drop(enter_block(norm(x)), deterministic), kept


class DecoderOnly(nn.Module):
    """A decoder-only language model (PaLM, Chowdhery et al. 2022; Gemma 1, 2024; Llama).

    The prefix of a row may see itself in both directions (a prefix language model); all else sees
    what stands before it. Padding may stand anywhere; nothing sees it and it takes no position.
    """

    config: DecoderOnlyConfig
    dtype: Any = jnp.float32
    scan_layers: bool = True
    remat: str = "none"
    attention: str = "xla"

    def setup(self) -> None:
        config = self.config
        self.token_embedder = TokenEmbedder(
            config.vocab_size, config.embed_dim, self.dtype, config.embedding_stddev
        )
        self.decoder = DecoderOnlyStack(
            config, self.dtype, self.scan_layers, self.remat, self.attention
        )
        if not config.tie_embeddings:
            # Losses and tokens hang on differences that bfloat16 would round away.
            self.logits_dense = Dense(config.vocab_size, ("embed", "vocab"), jnp.float32)

    def __call__(
        self,
        decoder_input_tokens: jax.Array,
        decoder_causal_attention: jax.Array | None = None,
        decoder_input_mask: jax.Array | None = None,
        image_embeddings: jax.Array | None = None,
        placeholder_mask: jax.Array | None = None,
        enable_dropout: bool = False,
    ) -> jax.Array:
        """Logits float32 [B, L, vocab] of what follows every place.

        Args:
          decoder_input_tokens: int32 [B, L].
          decoder_causal_attention: int32 [B, L]; 1 on the prefix, whose places see each other. None
            is causal throughout.
          decoder_input_mask: bool [B, L]; False is padding. None: all but zeros after the first
            place, where T5X's shift to the right puts a 0 before every row.
          image_embeddings: [B, T, E]; they replace the embeddings of placeholders, in order.
          placeholder_mask: bool [B, L]; which places are placeholders. Those of absent pictures
            count, but are padding. A row with more placeholders than T has NaN as logits.
          enable_dropout: needs the rng "dropout".

        Raises:
          ValueError, TypeError: an argument has a wrong shape or dtype.
        """
        inputs = (decoder_input_tokens, decoder_causal_attention, decoder_input_mask)
        x, _ = self._read(*inputs, image_embeddings, placeholder_mask, not enable_dropout)
        return self._logits(x)

    def prefill(
        self,
        decoder_input_tokens: jax.Array,
        decoder_causal_attention: jax.Array | None = None,
        decoder_input_mask: jax.Array | None = None,
        image_embeddings: jax.Array | None = None,
        placeholder_mask: jax.Array | None = None,
    ) -> tuple[jax.Array, DecoderOnlyCache]:
        """Reads prefixes in one pass; arguments as those of a call.

        Returns:
          The logits float32 [B, vocab] of what follows the last token of each row, and a cache
          without room: `cache.extended`.
        """
        inputs = (decoder_input_tokens, decoder_causal_attention, decoder_input_mask)
        x, cache = self._read(*inputs, image_embeddings, placeholder_mask, True)
        last = x.shape[1] - 1 - jnp.argmax(cache.mask[:, ::-1], axis=1)
        return self._logits(x[jnp.arange(len(x)), last][:, None])[:, 0], cache

    def decode_step(
        self, decoder_input_tokens: jax.Array, cache: DecoderOnlyCache
    ) -> tuple[jax.Array, DecoderOnlyCache]:
        """Logits float32 [B, Q, vocab] of the next Q tokens of each row, and the longer cache.

        All of them are tokens, 0 too. The cache must have room for them (`DecoderOnlyCache.
        extended`): places are only known when the step runs, so that what lies beyond its end is
        lost without a word.
        """
        tokens = decoder_input_tokens
        steps = jnp.arange(tokens.shape[1])[None]
        places = cache.used[:, None] + steps
        held = cache.mask.at[jnp.arange(len(tokens))[:, None], places].set(True)
        all_places = jnp.arange(held.shape[1])[None, None]
        mask = held[:, None] & (all_places <= places[:, :, None])
        positions = cache.positions[:, None] + steps
        x, layers = self.decoder(self._embed(tokens), positions, mask, cache.layers, places, True)
        count = tokens.shape[1]
        return self._logits(x), dataclasses.replace(
            cache,
            layers=layers,
            mask=held,
            used=cache.used + count,
            positions=cache.positions + count,
        )

    def _read(
        self,
        tokens: jax.Array,
        prefix: jax.Array | None,
        decoder_input_mask: jax.Array | None,
        image_embeddings: jax.Array | None,
        placeholder_mask: jax.Array | None,
        deterministic: bool,
    ) -> tuple[jax.Array, DecoderOnlyCache]:
        """The last layer's [B, L, E] of whole rows, and a cache that holds just these."""
        batch, length = tokens.shape
        if decoder_input_mask is None:
            decoder_input_mask = (tokens != PADDING) | (jnp.arange(length) == 0)
        _check("decoder_input_mask", decoder_input_mask, tokens.shape, jnp.bool_)
        x = self._embed(tokens)
        if image_embeddings is not None:
            _check("image_embeddings", image_embeddings, (batch, None, x.shape[2]), None)
            if placeholder_mask is None:
                raise ValueError("placeholder_mask: found None, expected one for image_embeddings")
            _check("placeholder_mask", placeholder_mask, tokens.shape, jnp.bool_)
            x = _replace_placeholders(x, image_embeddings, placeholder_mask, decoder_input_mask)
        places = jnp.arange(length)
        seen = (places[None] <= places[:, None])[None]
        if prefix is not None:
            _check("decoder_causal_attention", prefix, tokens.shape, jnp.int32)
            inside = prefix > 0
            seen |= inside[:, :, None] & inside[:, None, :]
        counts = jnp.cumsum(decoder_input_mask, axis=1, dtype=jnp.int32)
        # Every place sees itself: one that saw nothing would get the mean of all, the future too.
        itself = jnp.eye(length, dtype=bool)
        mask = seen & (decoder_input_mask[:, None] | itself)
        positions = jnp.maximum(counts - 1, 0)
        x, layers = self.decoder(x, positions, mask, None, None, deterministic)
        used = jnp.full((batch,), length, jnp.int32)
        return x, DecoderOnlyCache(
            layers, decoder_input_mask, used, counts[:, -1], prefix_places=length
        )

    def _embed(self, tokens: jax.Array) -> jax.Array:
        x = self.token_embedder(tokens)
        if self.config.embedding_scale == "inputs":
            x *= jnp.asarray(self.config.embed_dim**0.5, x.dtype)
        return x

    def _logits(self, x: jax.Array) -> jax.Array:
        config = self.config
        if config.tie_embeddings:
            if config.embedding_scale == "logits":
                x *= config.embed_dim**-0.5
            table = self.token_embedder.embedding.astype(self.dtype)
            logits = jnp.matmul(x, table.T, preferred_element_type=jnp.float32)
        else:
            logits = self.logits_dense(x)
        return constrain(logits, ("batch", "length", "vocab"))


def _replace_placeholders(
    x: jax.Array, embeddings: jax.Array, placeholder_mask: jax.Array, decoder_input_mask: jax.Array
) -> jax.Array:
    """[B, L, E] with the k-th of [B, T, E] at the k-th placeholder of each row."""
    which = jnp.cumsum(placeholder_mask, axis=1) - 1
    taken = jnp.take_along_axis(embeddings, which[:, :, None], axis=1, mode="fill")
    there = placeholder_mask & decoder_input_mask
    return jnp.where(there[:, :, None], taken.astype(x.dtype), x)


def _check(name: str, x: jax.Array, shape: tuple[int | None, ...], dtype: Any) -> None:
    fits = len(x.shape) == len(shape) and all(
        wanted in (None, found) for found, wanted in zip(x.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name}: found shape {x.shape}, expected {shape}")
    if dtype is not None and x.dtype != dtype:
        raise TypeError(f"{name}: found {x.dtype}, expected {jnp.dtype(dtype)}")
