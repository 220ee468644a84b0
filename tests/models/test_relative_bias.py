"""Relative position biases of every layer by itself (umT5), beside one for all (T5)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from rt2_jax.models.config import TextConfig, VisionConfig, VisionLanguageConfig
from rt2_jax.models.layer_stack import unstack_layers
from rt2_jax.models.vision_language import VisionLanguageModule

SHARED = VisionLanguageConfig(
    VisionConfig((8, 8), 8, 4, 1, 1, 4), TextConfig(20, 8, 2, 3, 2, 4, 12)
)
EACH = dataclasses.replace(
    SHARED, text=dataclasses.replace(SHARED.text, relative_bias_per_layer=True)
)
INPUTS = (None, None, jnp.array([[3, 4, 5, 6, 0]]), jnp.array([[0, 7, 8, 9]]))


@pytest.fixture(scope="module")
def variables():
    module = VisionLanguageModule(EACH)
    return jax.eval_shape(module.init, jax.random.key(0), *INPUTS)["params"]


@pytest.fixture(scope="module")
def params(variables):
    draw = np.random.default_rng(0)

    def fill(box):
        return jnp.asarray(draw.normal(size=box.value.shape) / 2, jnp.float32)

    return jax.tree.map(fill, variables, is_leaf=lambda x: hasattr(x, "names"))


@pytest.fixture(scope="module")
def logits(apply):
    return lambda config, params: np.asarray(apply(config, "__call__", params, *INPUTS))


def with_tables(params, change):
    flat = flatten_dict(params)
    return unflatten_dict(
        {path: change(leaf) if "relpos_bias" in path else leaf for path, leaf in flat.items()}
    )


def test_there_is_a_table_for_every_layer(variables):
    box = variables["decoder"]["relpos_bias"]["rel_embedding"]
    assert (box.value.shape, box.names) == ((2, 3, 32), ("heads", "layers", "relpos_buckets"))
    assert variables["encoder"]["relpos_bias"]["rel_embedding"].value.shape == (2, 2, 32)


def test_equal_tables_give_what_one_table_gives(logits, params):
    same = with_tables(params, lambda table: jnp.broadcast_to(table[:, :1], table.shape))
    one = with_tables(params, lambda table: table[:, 0])
    np.testing.assert_allclose(logits(EACH, same), logits(SHARED, one), atol=1e-5)
    assert np.abs(logits(EACH, same) - logits(EACH, params)).max() > 1e-3


def test_scanned_and_unrolled_layers_agree(logits, params):
    unrolled = dataclasses.replace(EACH, scan_layers=False)
    found = logits(unrolled, unstack_layers(params))
    np.testing.assert_allclose(found, logits(EACH, params), atol=1e-5)
