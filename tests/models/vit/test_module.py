"""ViT-22B's block: scanned layers, axes, what is float32 whatever the activations are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from rt2_jax.models.published_vision import VIT_22B
from rt2_jax.models.vit import VisionTransformer
from rt2_jax.training.adafactor import FACTOR_RULES


def test_scanned_and_written_out_layers_agree(configs, make_images, tokens_of):
    config, images = configs["vit_22b"], make_images(configs["vit_22b"])
    scanned, unrolled = tokens_of(config, images), tokens_of(config, images, scan_layers=False)
    np.testing.assert_allclose(scanned, unrolled, atol=1e-5)


def test_every_parameter_has_axes_that_t5x_knows():
    images = jax.ShapeDtypeStruct((1, *VIT_22B.image_size, 3), jnp.uint8)
    module = VisionTransformer(VIT_22B, jnp.dtype("float32"), True)
    boxed = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
    for box in jax.tree.leaves(boxed, is_leaf=lambda x: hasattr(x, "names")):
        assert len(box.names) == box.value.ndim and set(box.names) <= set(FACTOR_RULES), box.names
    norm = boxed["layers"]["attention"]["query_norm"]["scale"]
    assert (norm.names, norm.value.shape) == (("kv", "layers"), (128, 48))


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            if isinstance(value, ClosedJaxpr):
                yield from equations(value.jaxpr)
            elif isinstance(value, Jaxpr):
                yield from equations(value)


@pytest.mark.parametrize("name", ["vit", "vit_22b"])
def test_statistics_of_norms_and_softmax_are_float32_under_bfloat16(
    configs, make_images, make_params, name
):
    config = configs[name]
    module = VisionTransformer(config, jnp.dtype("bfloat16"), True)
    traced = jax.make_jaxpr(lambda params, images: module.apply({"params": params}, images))(
        make_params(config), make_images(config)
    )
    found = list(equations(traced.jaxpr))
    dtypes = {
        kind: [str(e.invars[0].aval.dtype) for e in found if e.primitive.name == kind]
        for kind in ("rsqrt", "exp", "reduce_sum", "reduce_max", "dot_general")
    }
    norms = 4 if name == "vit_22b" else 3  # of one layer, scanned, and the last
    assert dtypes["rsqrt"] == ["float32"] * norms
    assert dtypes["exp"] == ["float32"]
    assert set(dtypes["reduce_sum"] + dtypes["reduce_max"]) == {"float32"}
    assert set(dtypes["dot_general"]) == {"bfloat16"}


def test_bfloat16_gives_nearly_the_same_tokens(configs, make_images, tokens_of):
    config, images = configs["vit_22b"], make_images(configs["vit_22b"])
    exact, rough = tokens_of(config, images), tokens_of(config, images, dtype="bfloat16")
    assert rough.dtype == jnp.bfloat16
    error = np.abs(exact - rough.astype(jnp.float32)).mean() / exact.std()
    assert 1e-4 < error < 0.03
