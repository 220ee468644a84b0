"""The depthwise convolution of the CPU is that of other devices, gradients too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.models.rt1.depthwise import depthwise_conv


@pytest.mark.parametrize(
    ("side", "stride", "padding"), [(3, 1, ((1, 1), (1, 1))), (5, 2, ((1, 2), (2, 2)))]
)
def test_it_is_a_convolution_with_as_many_groups_as_channels(side, stride, padding):
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(2, 9, 7, 6)), jnp.float32)
    kernel = jnp.asarray(draw.normal(size=(side, side, 6)), jnp.float32)

    def grouped(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel[:, :, None],
            (stride, stride),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=6,
        )

    def both(function):
        def apply(x, kernel, weights):
            result, back = jax.vjp(function, x, kernel)
            return result, back(weights)

        return jax.jit(apply)

    weights = jnp.asarray(draw.normal(size=jax.eval_shape(grouped, x, kernel).shape), jnp.float32)
    found = both(lambda x, kernel: depthwise_conv(x, kernel, stride, padding))(x, kernel, weights)
    expected = both(grouped)(x, kernel, weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, expected)
