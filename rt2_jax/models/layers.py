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
from rt2_jax.models.products import look_up, matmul, narrow_matmul
from rt2_jax.models.recomputed import recomputed
from rt2_jax.models.rotary import Rotation, rotate
from rt2_jax.models.sharding import constrain, constrain_residual, enter_block, parameter_layout

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


KERNEL, KERNEL_SCALE = "kernel", "kernel_scale"


class Dense(nn.Module):
    """`x @ kernel (+ bias)` over the last axis.

    For serving, the kernel may be int8 with a scale of each output (`kernel_scale` float32
    [features]) beside it, or bfloat16.
    """

    features: int
    axes: tuple[str, str]
    dtype: Any
    use_bias: bool = False
    kernel_init: Initializer = _dense_init

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., in] -> [..., features], in `dtype`."""
        kernel = self.param(
            KERNEL, partitioned(self.kernel_init, self.axes), (x.shape[-1], self.features)
        )
        if kernel.dtype == jnp.int8 or (kernel.dtype != self.dtype and kernel.dtype == x.dtype):
            scale: jax.Array | None = self.get_variable("params", KERNEL_SCALE)
            x = narrow_matmul(x, kernel, scale, self.dtype)
        else:
            layout = parameter_layout(self.axes)
            x = matmul(x.astype(self.dtype), kernel.astype(self.dtype), layout)
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

        @recomputed
        def normed(x: jax.Array, scale: jax.Array) -> jax.Array:
            x = x.astype(jnp.float32)
            x *= jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + self.epsilon)
            return (x * scale).astype(self.dtype)

        return normed(x, scale)


class LayerNorm(nn.Module):
    """Layer norm (Ba et al. 2016) over the last axis, as in vision transformers.

    Without `use_bias` it has a scale alone; without `centering` the mean stays, as in ViT-22B
    (Dehghani et al. 2023, section 2): by both it is `RMSNorm`. `axis` is the last axis's logical
    name.
    """

    dtype: Any
    use_bias: bool = True
    centering: bool = True
    axis: str = "embed"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., E] -> [..., E]; the statistics are float32."""
        scale_init = partitioned(nn.initializers.ones_init(), (self.axis,))
        bias_init = partitioned(nn.initializers.zeros_init(), (self.axis,))
        scale = self.param("scale", scale_init, (x.shape[-1],))
        bias = self.param("bias", bias_init, (x.shape[-1],)) if self.use_bias else 0.0

        @recomputed
        def normed(x: jax.Array, scale: jax.Array, bias: jax.Array | float) -> jax.Array:
            x = x.astype(jnp.float32)
            if self.centering:
                x -= jnp.mean(x, axis=-1, keepdims=True)
            x *= jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
            return (x * scale + bias).astype(self.dtype)

        return normed(x, scale, bias)


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
        inputs = []
        for i in range(len(self.activations)):
            name = "wi" if len(self.activations) == 1 else f"wi_{i}"
            projected = Dense(self.hidden, ("embed", "mlp"), self.dtype, self.use_bias, name=name)(
                x
            )
            inputs.append(checkpoint_name(projected, MLP_HIDDEN))

        @recomputed
        def gated(*inputs: jax.Array) -> jax.Array:
            hidden = jnp.ones((), self.dtype)
            for activation, projected in zip(self.activations, inputs, strict=True):
                hidden = hidden * _ACTIVATIONS[activation](projected)
            return hidden

        hidden = gated(*inputs)
        hidden = dropout(self.dropout_rate)(hidden, deterministic)
        hidden = constrain(hidden, ("batch", "length", "mlp"))
        return Dense(features, ("mlp", "embed"), self.dtype, self.use_bias, name="wo")(hidden)


class Attention(nn.Module):
    """Attention of several heads whose keys and values are made apart, so that they can be kept.

    `scaled`: divide the logits by the root of `head_dim`; T5 has that factor in the initial query
    kernel instead. `num_kv_heads`: heads of keys and values, each for a group of neighbouring query
    heads (Ainslie et al. 2023); None is one for each. `qkv_bias`: of the projections to queries,
    keys and values, `use_bias` if None. `qk_norm`: makes the norms of queries and keys, each head
    by itself; it takes their logical `axis` (Dehghani et al. 2023, section 2). `implementation` as
    `attend` takes it.
    """

    num_heads: int
    head_dim: int
    dtype: Any
    scaled: bool = False
    use_bias: bool = False
    dropout_rate: float = 0.0
    num_kv_heads: int | None = None
    qkv_bias: bool | None = None
    qk_norm: Callable[..., nn.Module] | None = None
    implementation: str = "xla"

    def setup(self) -> None:
        def query_init(*args: Any) -> jax.Array:
            return _attention_init(*args) * (1.0 if self.scaled else self.head_dim**-0.5)

        features, axes = self.num_heads * self.head_dim, ("embed", "joined_kv")
        use_bias = self.use_bias if self.qkv_bias is None else self.qkv_bias
        self.query = Dense(features, axes, self.dtype, use_bias, query_init)
        # One head for all is kept whole: all query heads of every device need it.
        kv_axes = ("embed", "kv") if self.num_kv_heads == 1 else axes
        if self.num_kv_heads is not None:
            features = self.num_kv_heads * self.head_dim
        self.key = Dense(features, kv_axes, self.dtype, use_bias, _attention_init)
        self.value = Dense(features, kv_axes, self.dtype, use_bias, _attention_init)
        self.query_norm = self.qk_norm(axis="kv") if self.qk_norm else None
        self.key_norm = self.qk_norm(axis="kv") if self.qk_norm else None
        self.dropout = dropout(self.dropout_rate)

    def keys_and_values(
        self, x: jax.Array, rotation: Rotation | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """[B, K, E] -> twice [B, K, kv_heads, head_dim]; the keys turned by their positions."""
        return self._split(self.key(x), rotation, self.key_norm), self._split(self.value(x))

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
            self._split(self.query(x), rotation, self.query_norm),
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

    def _split(
        self, x: jax.Array, rotation: Rotation | None = None, norm: nn.Module | None = None
    ) -> jax.Array:
        x = checkpoint_name(x, ATTENTION_PROJECTION)
        x = x.reshape(*x.shape[:2], -1, self.head_dim)
        if norm is not None:
            x = norm(x)
        return x if rotation is None else rotate(x, rotation)


class EncoderLayer(nn.Module):
    """Self-attention and MLP around residuals, each behind a norm or both behind the same.

    The defaults are T5's. `norm` makes the norms. `scaled`, `qkv_bias` and `qk_norm` are those of
    `Attention`; `use_bias` is that of its output and of the MLP. `parallel_block`: attention and
    MLP read the same normed input and are added together, as in PaLM and ViT-22B.
    """

    num_heads: int
    head_dim: int
    mlp_dim: int
    mlp_activations: tuple[str, ...]
    dtype: Any
    dropout_rate: float = 0.0
    norm: Callable[..., nn.Module] = RMSNorm
    scaled: bool = False
    use_bias: bool = False
    qkv_bias: bool | None = None
    qk_norm: Callable[..., nn.Module] | None = None
    parallel_block: bool = False
    attention_implementation: str = "xla"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        relative_table: jax.Array | None,
        mask: jax.Array | None,
        bias: jax.Array | None,
        deterministic: bool,
    ) -> tuple[jax.Array, None]:
        """[B, L, E] -> [B, L, E]; `mask` and `bias` as `Attention` takes them.

        With `relative_table`, float32 [heads, buckets], `bias` is int32 [B, Q, K], the buckets.
        """
        if relative_table is not None:
            assert bias is not None, "a table of biases needs the buckets of all distances"
            bias = bias_of_buckets(relative_table, bias)
        drop = dropout(self.dropout_rate)
        attention = Attention(
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            dtype=self.dtype,
            scaled=self.scaled,
            use_bias=self.use_bias,
            dropout_rate=self.dropout_rate,
            qkv_bias=self.qkv_bias,
            qk_norm=self.qk_norm,
            implementation=self.attention_implementation,
            name="attention",
        )
        mlp = Mlp(
            self.mlp_dim,
            self.mlp_activations,
            self.dtype,
            self.use_bias,
            self.dropout_rate,
            name="mlp",
        )
        name = "layer_norm" if self.parallel_block else "pre_attention_layer_norm"
        normed = enter_block(self.norm(self.dtype, name=name)(x))
        attended = attention(normed, *attention.keys_and_values(normed), mask, bias, deterministic)
        if self.parallel_block:
            # One mask for the sum, as where one product gives both (flaxformer's fused layer).
            added = drop(attended + mlp(normed, deterministic), deterministic)
        else:
            x = constrain_residual(x + drop(attended, deterministic))
            x = checkpoint_name(x, RESIDUAL)
            normed = enter_block(self.norm(self.dtype, name="pre_mlp_layer_norm")(x))
            added = drop(mlp(normed, deterministic), deterministic)
        return constrain_residual(x + added), None


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
        return look_up(self.embedding, tokens, self.dtype, parameter_layout(("vocab", "embed")))


def bias_of_buckets(table: jax.Array, buckets: jax.Array) -> jax.Array:
    """[heads, buckets] at int32 [B, Q, K] -> [B, heads, Q, K]: a bias of attention logits."""
    return jnp.moveaxis(jnp.take(table, buckets, axis=1), 0, 1)


def dropout(rate: float) -> nn.Dropout:
    """Dropout with one mask for all positions, as in T5X."""
    return nn.Dropout(rate, broadcast_dims=(-2,))
