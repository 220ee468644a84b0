"""A T5 1.1 encoder-decoder over embeddings, with the key/value cache as argument and result."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax.ad_checkpoint import checkpoint_name

from rt2_jax.models.config import TextConfig
from rt2_jax.models.decoding import repeat_rows
from rt2_jax.models.layer_stack import RESIDUAL, apply_layers
from rt2_jax.models.layers import (
    Attention,
    Dense,
    EncoderLayer,
    Mlp,
    RMSNorm,
    bias_of_buckets,
    dropout,
)
from rt2_jax.models.position import RelativePositionBias
from rt2_jax.models.sharding import constrain, constrain_residual, enter_block

_ENCODED = ("encoded_keys", "encoded_values")


@struct.dataclass
class LayerCache:
    """Keys and values of one decoder layer, or of all, stacked.

    Attributes:
      keys: of the decoder's own tokens, [(layers,) B, length, heads, head_dim].
      values: as `keys`.
      encoded_keys: of the encoder's output, [(layers,) B, S, heads, head_dim].
      encoded_values: as `encoded_keys`.
    """

    keys: jax.Array
    values: jax.Array
    encoded_keys: jax.Array
    encoded_values: jax.Array


@struct.dataclass
class DecoderCache:
    """What decoding keeps between steps: a plain pytree, to be forked, spliced or thrown away.

    Attributes:
      layers: of all layers.
      encoder_mask: bool [B, S]; False where there is nothing to attend to.
      positions: int32 [B]; how many tokens each row holds. Rows may differ.
    """

    layers: LayerCache
    encoder_mask: jax.Array
    positions: jax.Array

    @property
    def room(self) -> int:
        """How many tokens a row can hold."""
        return self.layers.keys.shape[2]

    def repeated(self, count: int) -> DecoderCache:
        """A cache of `count` rows for each one, behind each other, to be written on apart."""
        return DecoderCache(
            jax.tree.map(lambda leaf: repeat_rows(leaf, count, axis=1), self.layers),
            repeat_rows(self.encoder_mask, count),
            repeat_rows(self.positions, count),
        )

    def extended(self, length: int) -> DecoderCache:
        """The same with room for `length` tokens in all."""
        layers = self.layers
        room = ((0, 0), (0, 0), (0, length - layers.keys.shape[2]), (0, 0), (0, 0))
        keys, values = jnp.pad(layers.keys, room), jnp.pad(layers.values, room)
        layers = dataclasses.replace(layers, keys=keys, values=values)
        return dataclasses.replace(self, layers=layers)


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder, and an MLP."""

    config: TextConfig
    dtype: Any
    attention_implementation: str = "xla"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mine: tuple[LayerCache | None, jax.Array | None],
        encoded: jax.Array | None,
        write_at: jax.Array | None,
        mask: jax.Array,
        bias: jax.Array,
        encoder_mask: jax.Array,
        deterministic: bool,
    ) -> tuple[jax.Array, LayerCache]:
        """Without a cache, keys and values come from `x` and `encoded`; with it, `x` is added.

        Args:
          x: [B, Q, E].
          mine: this layer's cache, or None; and its table of relative position biases, float32
            [heads, buckets], or None where all layers share one.
          encoded: [B, S, E], or None with a cache.
          write_at: int32 [B, Q], the places of `x` in the cache, or None without one.
          mask: bool [B or 1, 1, Q, K].
          bias: float32 [B or 1, heads, Q, K]; with a table int32 [B or 1, Q, K], the buckets.
          encoder_mask: bool [B, 1, 1, S].
          deterministic: no dropout.

        Returns:
          [B, Q, E], and the layer's part of the cache.
        """
        config, drop = self.config, dropout(self.config.dropout_rate)
        cached, relative_table = mine
        if relative_table is not None:
            bias = bias_of_buckets(relative_table, bias)
        attend = functools.partial(
            Attention,
            num_heads=config.num_heads,
            head_dim=config.head_dim,
            dtype=self.dtype,
            dropout_rate=config.dropout_rate,
            implementation=self.attention_implementation,
        )
        normed = enter_block(RMSNorm(self.dtype, name="pre_self_attention_layer_norm")(x))
        attention = attend(name="self_attention")
        keys, values = attention.keys_and_values(normed)
        if cached is not None:
            rows = jnp.arange(len(x))[:, None]
            keys = cached.keys.at[rows, write_at].set(keys)
            values = cached.values.at[rows, write_at].set(values)
        attended = attention(normed, keys, values, mask, bias, deterministic)
        x = constrain_residual(x + drop(attended, deterministic))

        normed = enter_block(RMSNorm(self.dtype, name="pre_cross_attention_layer_norm")(x))
        attention = attend(name="encoder_decoder_attention")
        if cached is None:
            assert encoded is not None, "without a cache there must be an encoder's output"
            to_keys, to_values = attention.keys_and_values(encoded)
        else:
            to_keys, to_values = cached.encoded_keys, cached.encoded_values
        attended = attention(normed, to_keys, to_values, encoder_mask, None, deterministic)
        x = checkpoint_name(constrain_residual(x + drop(attended, deterministic)), RESIDUAL)

        normed = enter_block(RMSNorm(self.dtype, name="pre_mlp_layer_norm")(x))
        mlp = Mlp(
            config.mlp_dim,
            config.mlp_activations,
            self.dtype,
            dropout_rate=config.dropout_rate,
            name="mlp",
        )
        x = constrain_residual(x + drop(mlp(normed, deterministic), deterministic))
        return x, LayerCache(keys, values, to_keys, to_values)


class Encoder(nn.Module):
    """T5's encoder over embeddings."""

    config: TextConfig
    dtype: Any
    scan_layers: bool
    remat: str = "none"
    attention: str = "xla"

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, deterministic: bool) -> jax.Array:
        """[B, S, E] with mask bool [B, S] -> [B, S, E]."""
        config, drop = self.config, dropout(self.config.dropout_rate)
        places = jnp.arange(x.shape[1])[None]
        bias, tables = RelativePositionBias(
            config.num_heads,
            config.relative_buckets,
            config.relative_max_distance,
            bidirectional=True,
            num_layers=config.encoder_layers if config.relative_bias_per_layer else None,
            name="relpos_bias",
        )(places, places)
        layers = apply_layers(
            EncoderLayer,
            {
                "num_heads": config.num_heads,
                "head_dim": config.head_dim,
                "mlp_dim": config.mlp_dim,
                "mlp_activations": config.mlp_activations,
                "dtype": self.dtype,
                "dropout_rate": config.dropout_rate,
                "attention_implementation": self.attention,
            },
            config.encoder_layers,
            self.scan_layers,
            self.remat,
        )
        x = drop(constrain_residual(x), deterministic)
        x, _ = layers(x, tables, mask[:, None, None, :], bias, deterministic)
        return drop(enter_block(RMSNorm(self.dtype, name="encoder_norm")(x)), deterministic)


class Decoder(nn.Module):
    """T5's decoder over embeddings, with the output layer."""

    config: TextConfig
    dtype: Any
    scan_layers: bool
    remat: str = "none"
    attention: str = "xla"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        encoded: jax.Array | None,
        encoder_mask: jax.Array,
        cache: DecoderCache | None,
        table: jax.Array | None,
        deterministic: bool,
    ) -> tuple[jax.Array, DecoderCache]:
        """[B, Q, E] -> logits float32 [B, Q, vocab], and the cache that holds these tokens too.

        `table` [vocab, E] is the embedding of a model that ties it to the output layer.
        """
        config, drop = self.config, dropout(self.config.dropout_rate)
        steps = jnp.arange(x.shape[1])[None]
        places = steps if cache is None else cache.positions[:, None] + steps
        length = x.shape[1] if cache is None else cache.layers.keys.shape[2]
        all_places = jnp.arange(length)[None]
        bias, tables = RelativePositionBias(
            config.num_heads,
            config.relative_buckets,
            config.relative_max_distance,
            bidirectional=False,
            num_layers=config.decoder_layers if config.relative_bias_per_layer else None,
            name="relpos_bias",
        )(places, all_places)
        mask = (all_places[:, None, :] <= places[:, :, None])[:, None]
        layers = apply_layers(
            DecoderLayer,
            {
                "config": config,
                "dtype": self.dtype,
                "attention_implementation": self.attention,
            },
            config.decoder_layers,
            self.scan_layers,
            self.remat,
        )
        x, kept = layers(
            drop(constrain_residual(x), deterministic),
            (None if cache is None else cache.layers, tables),
            encoded,
            None if cache is None else places,
            mask,
            bias,
            encoder_mask[:, None, None, :],
            deterministic,
        )
        count = jnp.full(x.shape[:1], x.shape[1], jnp.int32)
        if cache is not None:
            count += cache.positions
            # The same as before: not to be stacked again by every step.
            same = {name: getattr(cache.layers, name) for name in _ENCODED}
            kept = dataclasses.replace(kept, **same)
        x = drop(enter_block(RMSNorm(self.dtype, name="decoder_norm")(x)), deterministic)
        if table is None:
            axes = ("embed", "vocab")
            # Losses and tokens hang on differences that bfloat16 would round away.
            logits = Dense(config.vocab_size, axes, jnp.float32, name="logits_dense")(x)
        else:
            # T5 1.0 and UL2-20B divide by the root of the width; the embedding's scale is one.
            scaled, table = x * config.embed_dim**-0.5, table.astype(self.dtype)
            logits = jnp.matmul(scaled, table.T, preferred_element_type=jnp.float32)
        logits = constrain(logits, ("batch", "length", "vocab"))
        return logits, DecoderCache(kept, encoder_mask, positions=count)
