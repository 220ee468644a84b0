"""The layers that every transformer here is made of. They declare parameters only."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from rt2_jax.models.attention import attend
from rt2_jax.models.layer_stack import ATTENTION_OUTPUT, ATTENTION_PROJECTION, MLP_HIDDEN, RESIDUAL
from rt2_jax.models.products import matmul
from rt2_jax.models.rotary import Rotation, rotate

FIXED_AXIS = "relpos_buckets"
"""The logical axis of parameter dimensions that are never sharded: pixels of a patch, places.

T5X's Adafactor knows a closed list of axis names; of those that it neither shards nor factors, this
is the only one that its partitioner knows as well.
"""

Initializer = Callable[..., Any]

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": nn.gelu,
    "relu": nn.relu,
    "silu": nn.silu,
    "linear": lambda x: x,
}
_dense_init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
_attention_init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def partitioned(init: Initializer, axes: Sequence[str]) -> Initializer:
    """The initializer of a parameter with these logical axes."""
    return nn.with_logical_partitioning(init, tuple(axes))


def constrain(x: jax.Array) -> jax.Array:
    """Activations [B, L, E] are laid out as the logical axis rules say, where there are any."""
    return nn.with_logical_constraint(x, ("batch", "length", "embed"))


class Dense(nn.Module):
    """`x @ kernel (+ bias)` over the last axis."""

    features: int
    axes: tuple[str, str]
    dtype: Any
    use_bias: bool = False
    kernel_init: Initializer = _dense_init

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., in] -> [..., features], in `dtype`."""
        kernel = self.param(
            "kernel", partitioned(self.kernel_init, self.axes), (x.shape[-1], self.features)
        )
        x = matmul(x.astype(self.dtype), kernel.astype(self.dtype))
        if self.use_bias:
            bias_init = partitioned(nn.initializers.zeros_init(), self.axes[1:])
            x += self.param("bias", bias_init, (self.features,)).astype(self.dtype)
        return x


class RMSNorm(nn.Module):
    """T5's layer norm: only a scale, by the root mean square (Zhang and Sennrich 2019).

    `scale_plus_one`: the scale is 1 + the parameter, which begins at 0 (T5X's
    `center_scale_at_zero`), so that weight decay draws it to 1.
    """

    dtype: Any
    epsilon: float = 1e-6
    scale_plus_one: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., E] -> [..., E]; the statistics are float32."""
        init = nn.initializers.zeros_init() if self.scale_plus_one else nn.initializers.ones_init()
        scale = self.param("scale", partitioned(init, ("embed",)), (x.shape[-1],))
        if self.scale_plus_one:
            scale = 1.0 + scale
        x = x.astype(jnp.float32)
        x *= jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
        return (x * scale).astype(self.dtype)


class LayerNorm(nn.Module):
    """Layer norm with scale and bias (Ba et al. 2016), as in vision transformers."""

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., E] -> [..., E]; the statistics are float32."""
        scale_init = partitioned(nn.initializers.ones_init(), ("embed",))
        bias_init = partitioned(nn.initializers.zeros_init(), ("embed",))
        scale = self.param("scale", scale_init, (x.shape[-1],))
        bias = self.param("bias", bias_init, (x.shape[-1],))
        x = x.astype(jnp.float32)
        x -= jnp.mean(x, axis=-1, keepdims=True)
        x *= jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
        return (x * scale + bias).astype(self.dtype)


class Mlp(nn.Module):
    """Input projections, one for each activation and multiplied, then the output projection.

    Two of them are a gated MLP (Shazeer 2020).
    """

    hidden: int
    activations: tuple[str, ...]
    dtype: Any
    use_bias: bool = False
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        """[B, L, E] -> [B, L, E]."""
        features = x.shape[-1]
        hidden = jnp.ones((), self.dtype)
        for i, activation in enumerate(self.activations):
            name = "wi" if len(self.activations) == 1 else f"wi_{i}"
            projected = Dense(self.hidden, ("embed", "mlp"), self.dtype, self.use_bias, name=name)(
                x
            )
            projected = checkpoint_name(projected, MLP_HIDDEN)
            hidden = hidden * _ACTIVATIONS[activation](projected)
        hidden = dropout(self.dropout_rate)(hidden, deterministic)
        hidden = nn.with_logical_constraint(hidden, ("batch", "length", "mlp"))
        return Dense(features, ("mlp", "embed"), self.dtype, self.use_bias, name="wo")(hidden)


class Attention(nn.Module):
    """Attention of several heads whose keys and values are made apart, so that they can be kept.

    `scaled`: divide the logits by the root of `head_dim`; T5 has that factor in the initial query
    kernel instead. `num_kv_heads`: heads of keys and values, each for a group of neighbouring query
    heads (Ainslie et al. 2023); None is one for each. `implementation` as `attend` takes it.
    """

    num_heads: int
    head_dim: int
    dtype: Any
    scaled: bool = False
    use_bias: bool = False
    dropout_rate: float = 0.0
    num_kv_heads: int | None = None
    implementation: str = "xla"

    def setup(self) -> None:
        def query_init(*args: Any) -> jax.Array:
            return _attention_init(*args) * (1.0 if self.scaled else self.head_dim**-0.5)

        features, axes = self.num_heads * self.head_dim, ("embed", "joined_kv")
        self.query = Dense(features, axes, self.dtype, self.use_bias, query_init)
        # One head for all is kept whole: all query heads of every device need it.
        kv_axes = ("embed", "kv") if self.num_kv_heads == 1 else axes
        if self.num_kv_heads is not None:
            features = self.num_kv_heads * self.head_dim
        self.key = Dense(features, kv_axes, self.dtype, self.use_bias, _attention_init)
        self.value = Dense(features, kv_axes, self.dtype, self.use_bias, _attention_init)
        self.dropout = dropout(self.dropout_rate)

    def keys_and_values(
        self, x: jax.Array, rotation: Rotation | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[B, K, E] -> twice [B, K, kv_heads, head_dim]; the keys turned by their positions."""
        return self._split(self.key(x), rotation), self._split(self.value(x))

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        keys: jax.Array,
        values: jax.Array,
        mask: jax.Array | None,
        bias: jax.Array | None,
        deterministic: bool,
        rotation: Rotation | None = None,
    ) -> jax.Array:
        """Attends from `x` to `keys`; softmax in float32.

        Args:
          x: [B, Q, E].
          keys: [B, K, kv_heads, head_dim].
          values: as `keys`.
          mask: bool, broadcast to [B, heads, Q, K]; True where attention is allowed.
          bias: float32, likewise; added to the logits.
          deterministic: no dropout.
          rotation: of the queries, by their rotary positions.

        Returns:
          [B, Q, E].
        """
        drop = None
        if self.dropout_rate and not deterministic:
            drop = functools.partial(self.dropout, deterministic=False)
        mixed = attend(
            self._split(self.query(x), rotation),
            keys,
            values,
            mask,
            bias,
            scale=self.head_dim**-0.5 if self.scaled else 1.0,
            dropout=drop,
            # New parameters are made outside of any mesh, and what is computed then is not used.
            implementation="xla" if self.is_initializing() else self.implementation,
            where="/".join(self.path),
        )
        mixed = checkpoint_name(mixed.reshape(*mixed.shape[:2], -1), ATTENTION_OUTPUT)
        axes = ("joined_kv", "embed")
        return Dense(x.shape[-1], axes, self.dtype, self.use_bias, _attention_init, name="out")(
            mixed
        )

    def _split(self, x: jax.Array, rotation: Rotation | None = None) -> jax.Array:
        x = checkpoint_name(x, ATTENTION_PROJECTION)
        x = x.reshape(*x.shape[:2], -1, self.head_dim)
        return x if rotation is None else rotate(x, rotation)


class EncoderLayer(nn.Module):
    """Self-attention and MLP, each behind a norm and around a residual.

    `style` is `t5` (RMS norm, no biases, T5's unscaled attention) or `vit` (layer norm, biases).
    """

    style: str
    num_heads: int
    head_dim: int
    mlp_dim: int
    mlp_activations: tuple[str, ...]
    dtype: Any
    dropout_rate: float = 0.0
    attention_implementation: str = "xla"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mine: None,
        mask: jax.Array | None,
        bias: jax.Array | None,
        deterministic: bool,
    ) -> tuple[jax.Array, None]:
        """[B, L, E] -> [B, L, E]; `mask` and `bias` as `Attention` takes them."""
        vit = self.style == "vit"
        norm = LayerNorm if vit else RMSNorm
        drop = dropout(self.dropout_rate)
        normed = norm(self.dtype, name="pre_attention_layer_norm")(x)
        attention = Attention(
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            dtype=self.dtype,
            scaled=vit,
            use_bias=vit,
            dropout_rate=self.dropout_rate,
            implementation=self.attention_implementation,
            name="attention",
        )
        attended = attention(normed, *attention.keys_and_values(normed), mask, bias, deterministic)
        x = checkpoint_name(x + drop(attended, deterministic), RESIDUAL)
        mlp = Mlp(
            self.mlp_dim, self.mlp_activations, self.dtype, vit, self.dropout_rate, name="mlp"
        )
        normed = norm(self.dtype, name="pre_mlp_layer_norm")(x)
        return constrain(x + drop(mlp(normed, deterministic), deterministic)), None


class TokenEmbedder(nn.Module):
    """The embedding of tokens; `embedding` is its table, at first normal of `stddev`."""

    vocab_size: int
    embed_dim: int
    dtype: Any
    stddev: float = 1.0

    def setup(self) -> None:
        self.embedding = self.param(
            "embedding",
            partitioned(nn.initializers.normal(self.stddev), ("vocab", "embed")),
            (self.vocab_size, self.embed_dim),
        )

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """int32 [B, L] -> [B, L, E]."""
        return jnp.take(self.embedding, tokens, axis=0).astype(self.dtype)


def dropout(rate: float) -> nn.Dropout:
    """Dropout with one mask for all positions, as in T5X."""
    return nn.Dropout(rate, broadcast_dims=(-2,))
