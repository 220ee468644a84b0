"""Action tokens that begin in order: near levels are alike, all other weights are untouched."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from rt2_jax.models.config import TextConfig, VisionConfig, VisionLanguageConfig
from rt2_jax.models.model import VisionLanguageModel
from rt2_jax.training.ordinal import level_waves, order_action_tokens

IDS = (7, 3, 40, 41, 9, 22, 23, 5)
WIDTH = 16
OF_TOKENS = (("token_embedder", "embedding"), ("decoder", "logits_dense", "kernel"))


@pytest.fixture(scope="module")
def params():
    config = VisionLanguageConfig(
        vision=VisionConfig((16, 16), 8, WIDTH, 1, 2, 16),
        text=TextConfig(50, WIDTH, 1, 1, 2, 8, 16),
    )
    shapes = {
        "images": (1, 1, 16, 16, 3),
        "image_mask": (1, 1),
        "encoder_input_tokens": (1, 4),
        "decoder_input_tokens": (1, 4),
        "decoder_target_tokens": (1, 4),
        "decoder_loss_weights": (1, 4),
    }

    def new():
        params = VisionLanguageModel(config).get_initial_variables(jax.random.key(0), shapes)
        return flatten_dict(params["params"])

    # Those of tokens as the model begins them; the others may be any numbers.
    draw = np.random.default_rng(0)
    flat = {name: draw.normal(size=leaf.shape) for name, leaf in jax.eval_shape(new).items()}
    flat |= jax.jit(lambda: {name: new()[name] for name in OF_TOKENS})()
    return unflatten_dict(flat)


def test_the_nearer_two_levels_the_more_alike_are_their_waves():
    waves = level_waves(64, 32)
    np.testing.assert_allclose((waves**2).mean(axis=1), 1, rtol=1e-5)
    alike = waves @ waves.T
    for level in range(64):
        order = np.argsort(-alike[level])
        assert order[0] == level
        assert np.abs(order[1:3] - level).max() <= 2


def test_only_action_tokens_change_and_they_keep_their_scale(params):
    ordered = order_action_tokens(params, IDS)
    others = np.setdiff1d(np.arange(50), IDS)
    before, after = (each["token_embedder"]["embedding"] for each in (params, ordered))
    np.testing.assert_array_equal(after[others], before[others])
    np.testing.assert_allclose(after[np.array(IDS)], level_waves(len(IDS), WIDTH), rtol=1e-6)
    before, after = (each["decoder"]["logits_dense"]["kernel"] for each in (params, ordered))
    np.testing.assert_array_equal(after[:, others], before[:, others])
    spread = np.std(after[:, np.array(IDS)]) / np.std(before)
    assert 0.5 < spread < 2
    rest = [
        (path, leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(ordered)
        if not any(name in str(path) for name in ("token_embedder", "logits_dense"))
    ]
    assert len(rest) > 10
    for path, leaf in rest:
        old = params
        for key in path:
            old = old[key.key]
        np.testing.assert_array_equal(leaf, old)
