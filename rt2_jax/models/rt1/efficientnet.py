"""EfficientNet whose every block an instruction modulates (FiLM).

The parameters, and what whoever imports weights must know:

```
stem                {kernel [27, C], norm}           3x3, stride 2, swish
block_<i>           i from 0; in order of the stages
  expand            {kernel [C_in, 6 C_in], norm}    1x1, swish; absent where the expansion is 1
  depthwise         {kernel [k * k, C], norm}        k x k of every channel by itself, swish
  squeeze           {kernel [C, S], bias}            swish; S = C_in // 4: of the block's INPUT
  excite            {kernel [S, C], bias}            sigmoid
  project           {kernel [C, C_out], norm}        1x1, no activation
film_<i>            {scale, shift: {kernel [D, C_out], bias}}    after block i
top                 {kernel [C_in, C], norm}         1x1, swish
norm                {scale, bias [C]}, and {mean, var [C]} with `frozen_batch`
```

A kernel's first axis is (row, column, input channel), flattened row-major: the weights of Keras
(height, width, in, out) reshaped. Pictures are RGB; divided by 255, ImageNet's mean and standard
deviation. Norms add 0.001 to the variance. Padding at stride 2 is as `EfficientNetConfig.padding`
says, and more of it stands behind than before; at stride 1 the size stays.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rt2_jax.models.layers import FIXED_AXIS, Dense, partitioned
from rt2_jax.models.products import matmul
from rt2_jax.models.rt1.config import Block, EfficientNetConfig
from rt2_jax.models.rt1.depthwise import depthwise_conv

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STDDEV = (0.229, 0.224, 0.225)
EPSILON = 1e-3
GROUP = 8
"""Channels that are normed together; all counts of channels are multiples of it."""

CHANNELS = "kv"
"""The logical axis of channels. It is one that is not divided among devices.

Many counts, such as 24 or 136, would not divide, and all of B3 is 40 MB.
"""
_AXES = (FIXED_AXIS, CHANNELS)
_dense_init = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


class EfficientNet(nn.Module):
    """EfficientNet (Tan and Le 2019) without its classifier."""

    config: EfficientNetConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, images: jax.Array, condition: jax.Array | None, deterministic: bool = True
    ) -> jax.Array:
        """The features of pictures.

        Args:
          images: uint8 [P, H, W, 3].
          condition: [P, D], what modulates every block; None: no such parameters at all.
          deterministic: no drop connect; else it needs the rng "dropout".

        Returns:
          `dtype` [P, rows, columns, C].
        """
        config = self.config
        x = images.astype(jnp.float32) / 255.0
        x = ((x - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STDDEV)).astype(self.dtype)
        x = ConvNorm(config, self.dtype, config.stem_channels, 3, 2, name="stem")(x)
        for i, block in enumerate(config.blocks):
            drop_rate = config.drop_connect_rate * i / len(config.blocks)
            mbconv = MBConv(config, self.dtype, block, drop_rate, name=f"block_{i}")
            x = mbconv(x, deterministic)
            if condition is not None:
                x = Film(self.dtype, name=f"film_{i}")(x, condition)
        return ConvNorm(config, self.dtype, config.top_channels, name="top")(x)


class MBConv(nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation, projection; around it a residual.

    Sandler et al. 2018, with the squeeze and excitation of Hu et al. 2018.
    """

    config: EfficientNetConfig
    dtype: Any
    block: Block
    drop_rate: float = 0.0

    @nn.compact
    def __call__(self, inputs: jax.Array, deterministic: bool) -> jax.Array:
        """[P, H, W, C_in] -> [P, H / stride, W / stride, C_out]."""
        block, x = self.block, inputs
        channels = block.channels_in * block.expansion
        if block.expansion != 1:
            x = ConvNorm(self.config, self.dtype, channels, name="expand")(x)
        x = ConvNorm(
            self.config,
            self.dtype,
            channels,
            block.kernel,
            block.stride,
            depthwise=True,
            name="depthwise",
        )(x)

        def dense(features: int, name: str) -> Dense:
            return Dense(features, _AXES, self.dtype, True, _dense_init, name=name)

        squeezed = jnp.mean(x.astype(jnp.float32), axis=(1, 2), keepdims=True)
        squeezed = nn.silu(dense(max(1, block.channels_in // 4), "squeeze")(squeezed))
        x = x * nn.sigmoid(dense(channels, "excite")(squeezed))
        x = ConvNorm(self.config, self.dtype, block.channels_out, activate=False, name="project")(x)
        if block.stride == 1 and block.channels_in == block.channels_out:
            drop = nn.Dropout(self.drop_rate, broadcast_dims=(1, 2, 3))
            x = inputs + drop(x, deterministic)
        return x


class Film(nn.Module):
    """Feature-wise linear modulation, (1 + scale) * x + shift (Perez et al. 2018).

    Both begin at zero, so that a pretrained network is at first what it was (RT-1, section 5.1).
    """

    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        """[P, H, W, C] by [P, D] -> [P, H, W, C]."""

        def projected(name: str) -> jax.Array:
            zeros = nn.initializers.zeros_init()
            return Dense(x.shape[-1], _AXES, self.dtype, True, zeros, name=name)(
                condition[:, None, None]
            )

        return (1.0 + projected("scale")) * x + projected("shift")


class ConvNorm(nn.Module):
    """A convolution without bias, a norm, and swish unless `activate` is False."""

    config: EfficientNetConfig
    dtype: Any
    features: int
    side: int = 1
    stride: int = 1
    depthwise: bool = False
    activate: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[P, H, W, C_in] -> [P, H / stride, W / stride, features]."""
        area, inputs = self.side**2, 1 if self.depthwise else x.shape[-1]
        # He et al. 2015 by fan-out, where a depthwise kernel has one output for each input.
        init = nn.initializers.variance_scaling(
            2.0 if self.depthwise else 2.0 / area,
            "fan_in" if self.depthwise else "fan_out",
            "truncated_normal",
        )
        kernel = self.param("kernel", partitioned(init, _AXES), (area * inputs, self.features))
        kernel, x = kernel.astype(self.dtype), x.astype(self.dtype)
        rows, columns = (self._padding(size) for size in x.shape[1:3])
        if self.side == 1:
            x = matmul(x, kernel)
        elif self.depthwise:
            kernel = kernel.reshape(self.side, self.side, -1)
            x = depthwise_conv(x, kernel, self.stride, (rows, columns))
        else:
            x = jax.lax.conv_general_dilated(
                x,
                kernel.reshape(self.side, self.side, inputs, self.features),
                window_strides=(self.stride, self.stride),
                padding=(rows, columns),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
        x = ChannelNorm(self.config.norm, self.dtype, name="norm")(x)
        return nn.silu(x) if self.activate else x

    def _padding(self, size: int) -> tuple[int, int]:
        """Zeros before and behind."""
        even = self.config.padding == "even" and self.stride == 2
        covered = (-(-size // self.stride) - 1) * self.stride + self.side
        total = self.side - 2 if even else max(covered - size, 0)
        return total // 2, total - total // 2


class ChannelNorm(nn.Module):
    """Group norm, or batch norm with statistics that are parameters and do not learn.

    Batch norm in training keeps running statistics, which would be a mutable collection beside the
    parameters, and makes what an example gives depend on the batch and on how it is divided among
    devices. With imported weights the stored statistics are used as they are, which is the network
    that was pretrained, exactly, and what is usually done in fine-tuning with few pictures on a
    device. Without imported weights such statistics (0 and 1) norm nothing, hence group norm.

    `mean` and `var` get no gradient; where weight decay is used, they are to be frozen by name.
    """

    kind: str
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[P, H, W, C] -> [P, H, W, C]; the statistics are float32."""
        shape = x.shape[-1:]
        ones = partitioned(nn.initializers.ones_init(), (CHANNELS,))
        zeros = partitioned(nn.initializers.zeros_init(), (CHANNELS,))
        scale, bias = self.param("scale", ones, shape), self.param("bias", zeros, shape)
        x = x.astype(jnp.float32)
        if self.kind == "frozen_batch":
            mean = jax.lax.stop_gradient(self.param("mean", zeros, shape))
            variance = jax.lax.stop_gradient(self.param("var", ones, shape))
        else:
            mean = _over_groups(jnp.mean(x, axis=(1, 2), keepdims=True))
            squares = _over_groups(jnp.mean(jnp.square(x), axis=(1, 2), keepdims=True))
            variance = jnp.maximum(squares - jnp.square(mean), 0.0)
        factor = scale * jax.lax.rsqrt(variance + EPSILON)
        return (x * factor + (bias - mean * factor)).astype(self.dtype)


def _over_groups(x: jax.Array) -> jax.Array:
    """Every channel's mean over its group: [..., C] -> [..., C]."""
    means = jnp.mean(x.reshape(*x.shape[:-1], -1, GROUP), axis=-1)
    return jnp.repeat(means, GROUP, axis=-1)
