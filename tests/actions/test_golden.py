"""The published rules of RT-1, RT-2 and OpenVLA, against vectors made with their own code."""

import json

import numpy as np
import pytest

from rt2_jax.actions.binning import OpenVLACentres, RT1Truncating, UniformBins
from rt2_jax.actions.bounds import FixedBounds
from rt2_jax.actions.space import ActionField, ActionSpace, rt2_action_space
from rt2_jax.actions.statistics import resolve_bounds
from rt2_jax.actions.vocabulary import ActionVocabulary


@pytest.fixture(scope="module")
def golden(shared_data):
    return json.loads((shared_data / "golden/action_token_vectors.json").read_text())


def bind(codec, bounds):
    fields = tuple(
        ActionField(f"x{i}", "1", "none", "absolute", FixedBounds(low, high))
        for i, (low, high) in enumerate(bounds)
    )
    space = ActionSpace("golden", fields, 5)
    return codec.bind(space, resolve_bounds(space))


def encode(codec, bounds, action):
    return bind(codec, bounds).encode(np.array([action], np.float32)).levels[0]


def test_the_papers_string_is_eight_levels_in_the_papers_order(golden):
    example = golden["rt2_paper_example"]
    space = rt2_action_space(
        "rt2",
        translation_bound_m=1,
        rotation_bound_rad=np.pi / 2,
        gripper_polarity="high_is_closed",
        control_rate_hz=3,
    )
    bound = UniformBins().bind(space, resolve_bounds(space))
    levels = bound.from_text(example["string"])
    assert bound.to_text(bound.encode(bound.decode(levels)).levels) == example["string"]
    assert space.dimension == len(example["layout"].split())


def test_rt1s_published_and_derived_tokens(golden):
    vectors = golden["rt1_tokenizer"]
    cases = [case for case in vectors["published"] if "action" in case]
    assert len(cases) == 2
    for case in cases + vectors["derived_float32"]:
        bounds = [(case["lo"], case["hi"])] * len(case["action"])
        levels = encode(RT1Truncating(bins=case["vocab"]), bounds, case["action"])
        assert levels.tolist() == case["tokens"]


def test_rt1s_published_terminate_tokens_but_none_out_of_range(golden):
    """RT-1 reads an unknown terminate token as 0, `terminate`; here it is refused."""
    space = rt2_action_space(
        "rt1",
        translation_bound_m=1,
        rotation_bound_rad=np.pi / 2,
        gripper_polarity="high_is_closed",
        control_rate_hz=3,
    )
    bound = RT1Truncating(bins=10).bind(space, resolve_bounds(space))
    action = np.zeros((1, 8), np.float32)
    for case in golden["rt1_tokenizer"]["published"]:
        if "terminate_onehot" in case:
            action[0, 0] = np.argmax(case["terminate_onehot"])
            assert bound.encode(action).levels[0, 0] == case["tokens"][0]
        elif "detokenise" in case:
            levels = np.array([[case["detokenise"][0], 0, 0, 0, 0, 0, 0, 0]])
            if levels[0, 0] < 2:
                assert bound.decode(levels)[0, 0] == np.argmax(case["onehot"])
            else:
                with pytest.raises(ValueError, match="'terminate'.* is 3, expected 0 to 1"):
                    bound.decode(levels)


def test_openvlas_digits_token_ids_and_values(golden):
    vectors = golden["openvla_tokenizer"]["vectors"]
    bound = bind(OpenVLACentres(), [(-1, 1)] * len(vectors["action"]))
    levels = bound.encode(np.array([vectors["action"]])).levels
    assert bound.to_text(levels) == " ".join(map(str, vectors["digit"]))
    llama = ActionVocabulary(tuple(range(31999, 31743, -1)), "rare_pieces", "llama-2")
    assert llama.to_ids(levels[0]).tolist() == vectors["token_id"]
    np.testing.assert_allclose(bound.decode(levels)[0], vectors["decoded"], atol=1e-7)


def test_openvlas_q01_q99_scaling_of_a_bridge_action(golden):
    case = golden["bounds_q99_normalisation"]
    # OpenVLA leaves the masked gripper as it is, and then writes it between -1 and 1.
    low = np.where(case["mask"], case["q01"], -1)
    high = np.where(case["mask"], case["q99"], 1)
    bound = bind(OpenVLACentres(), np.stack([low, high], axis=1))
    levels = bound.encode(np.array([case["example"]["action"]])).levels
    assert (levels[0] + 1).tolist() == case["example"]["openvla_digit"]
    half_a_bin = (bound.bounds.high - bound.bounds.low) / 255 / 2
    error = np.abs(bound.decode(levels)[0] - case["example"]["action"])
    assert (error <= half_a_bin + 1e-7).all()
