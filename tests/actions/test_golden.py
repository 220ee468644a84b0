"""The published rules of RT-1, RT-2 and OpenVLA, against published vectors."""

import json

import numpy as np
import pytest

from rt2_jax.actions.binning import OpenVLACentres, RT1Truncating, UniformBins
from rt2_jax.actions.bounds import FixedBounds
from rt2_jax.actions.space import ActionField, ActionSpace, rt2_action_space
from rt2_jax.actions.statistics import resolve_bounds
from rt2_jax.actions.tokens import ActionTokens
from rt2_jax.actions.vocabulary import ActionVocabulary

# RT-2 (arXiv 2307.15818), section 3.2, and robotics-transformer2.github.io.
RT2_STRING = "1 128 91 241 5 101 127 217"
RT2_LAYOUT = "terminate dx dy dz droll dpitch dyaw gripper"

# Values from end to end of -1 to 1, and beyond both, for the rules of RT-1 and OpenVLA.
VALUES = [-1, -0.999, -0.5, -0.0039, 0, 0.0039, 0.1, 0.5, 0.999, 1, 1.5, -1.5]

# (levels, action, tokens) with bounds -1 and 1. The first two stand in robotics_transformer's
# tokenizers/action_tokenizer_test.py (google-research, Apache-2.0); the third is the rule
# int((clip(a, -1, 1) + 1) / 2 * 255) in float32.
RT1 = [
    (10, [0.1, 0.5, -0.8], [4, 6, 0]),
    (10, [-1, 1], [0, 9]),
    (256, VALUES, [0, 0, 63, 127, 127, 127, 140, 191, 254, 255, 255, 0]),
]
# The same test's tokens of `terminate_episode`: (one-hot, token) written, (token, one-hot) read.
RT1_TERMINATE = [([0, 1], 1)]
RT1_TERMINATE_READ = [(0, [1, 0]), (1, [0, 1]), (3, [1, 0])]

# openvla/openvla, prismatic/vla/action_tokenizer.py (MIT): the digit is digitize(clip(a, -1, 1),
# linspace(-1, 1, 256)), the token 32000 - digit (Llama-2's vocabulary), the value a bin's centre.
OPENVLA_DIGITS = [1, 1, 64, 128, 128, 128, 141, 192, 255, 256, 256, 1]
OPENVLA_TOKENS = [
    31999, 31999, 31936, 31872, 31872, 31872, 31859, 31808, 31745, 31744, 31744, 31999,
]  # fmt: skip
OPENVLA_DECODED = (
    np.array([-254, -254, -128, 0, 0, 0, 26, 128, 254, 254, 254, -254]) / 255
)  # fmt: skip

# q01 and q99 of bridge_orig in openvla-7b's normalisation statistics, which leave the gripper out,
# and the digits of an action that is scaled to -1..1 by them.
BRIDGE_Q01 = [
    -0.02872725307941437,
    -0.04170349963009357,
    -0.026093858778476715,
    -0.08092105075716972,
    -0.09288699507713317,
    -0.20718276381492615,
    0,
]
BRIDGE_Q99 = [
    0.028309678435325586,
    0.040855254605412394,
    0.040161586627364146,
    0.08192047759890528,
    0.07792850524187081,
    0.20382574498653397,
    1,
]
BRIDGE_MASK = [True, True, True, True, True, True, False]
BRIDGE_ACTION = [0.01, -0.02, 0.005, 0.03, -0.05, 0.1, 1]
BRIDGE_DIGITS = [174, 68, 120, 174, 65, 191, 256]


def bind(codec, bounds):
    fields = tuple(
        ActionField(f"x{i}", "1", "none", "absolute", FixedBounds(low, high))
        for i, (low, high) in enumerate(bounds)
    )
    space = ActionSpace("golden", fields, 5)
    return codec.bind(space, resolve_bounds(space))


def rt_space(name):
    return rt2_action_space(
        name,
        translation_bound_m=1,
        rotation_bound_rad=np.pi / 2,
        gripper_polarity="high_is_closed",
        control_rate_hz=3,
    )


def test_the_papers_string_is_eight_levels_in_the_papers_order():
    space = rt_space("rt2")
    bound = UniformBins().bind(space, resolve_bounds(space))
    levels = bound.from_text(RT2_STRING)
    assert bound.to_text(bound.encode(bound.decode(levels)).levels) == RT2_STRING
    assert space.dimension == len(RT2_LAYOUT.split())


@pytest.mark.parametrize(("bins", "action", "tokens"), RT1)
def test_rt1s_published_and_derived_tokens(bins, action, tokens):
    bound = bind(RT1Truncating(bins=bins), [(-1, 1)] * len(action))
    assert bound.encode(np.float32([action])).levels[0].tolist() == tokens


def test_rt1s_terminate_tokens_but_none_out_of_range():
    """RT-1 reads an unknown terminate token as 0, `terminate`; here it is refused."""
    space = rt_space("rt1")
    bound = RT1Truncating(bins=10).bind(space, resolve_bounds(space))
    for one_hot, token in RT1_TERMINATE:
        action = np.float32([[np.argmax(one_hot), 0, 0, 0, 0, 0, 0, 0]])
        assert bound.encode(action).levels[0, 0] == token
    for token, one_hot in RT1_TERMINATE_READ:
        levels = np.array([[token, 0, 0, 0, 0, 0, 0, 0]])
        if token < 2:
            assert bound.decode(levels)[0, 0] == np.argmax(one_hot)
        else:
            with pytest.raises(ValueError, match="'terminate'.* is 3, expected 0 to 1"):
                bound.decode(levels)


def test_openvlas_digits_token_ids_and_values():
    bound = bind(OpenVLACentres(), [(-1, 1)] * len(VALUES))
    levels = bound.encode(np.array([VALUES])).levels
    assert bound.to_text(levels) == " ".join(map(str, OPENVLA_DIGITS))
    table = tuple(range(31999, 31743, -1))
    tokens = ActionTokens(bound, ActionVocabulary(table, range(1, 257), "rare_pieces", "llama-2"))
    assert tokens.to_ids(levels).tolist() == OPENVLA_TOKENS
    decoded = bound.decode(tokens.from_ids(OPENVLA_TOKENS))
    np.testing.assert_allclose(decoded[0], OPENVLA_DECODED, atol=1e-7)


def test_openvlas_q01_q99_scaling_of_a_bridge_action():
    # OpenVLA leaves the masked gripper as it is, and then writes it between -1 and 1.
    low = np.where(BRIDGE_MASK, BRIDGE_Q01, -1)
    high = np.where(BRIDGE_MASK, BRIDGE_Q99, 1)
    bound = bind(OpenVLACentres(), np.stack([low, high], axis=1))
    levels = bound.encode(np.array([BRIDGE_ACTION])).levels
    assert (levels[0] + 1).tolist() == BRIDGE_DIGITS
    half_a_bin = (bound.bounds.high - bound.bounds.low) / 255 / 2
    error = np.abs(bound.decode(levels)[0] - BRIDGE_ACTION)
    assert (error <= half_a_bin + 1e-7).all()


def test_these_vectors_are_those_of_the_sample_data(shared_data):
    golden = json.loads((shared_data / "golden/action_token_vectors.json").read_text())
    assert golden["rt2_paper_example"]["string"] == RT2_STRING
    assert golden["rt2_paper_example"]["layout"] == RT2_LAYOUT
    rt1 = golden["rt1_tokenizer"]
    cases = rt1["published"] + rt1["derived_float32"]
    assert RT1 == [(x["vocab"], x["action"], x["tokens"]) for x in cases if "action" in x]
    assert {(x["lo"], x["hi"]) for x in cases if "action" in x} == {(-1, 1)}
    written = [x for x in cases if "terminate_onehot" in x]
    assert RT1_TERMINATE == [(x["terminate_onehot"], *x["tokens"]) for x in written]
    read = [x for x in cases if "detokenise" in x]
    assert RT1_TERMINATE_READ == [(*x["detokenise"], x["onehot"]) for x in read]
    openvla = golden["openvla_tokenizer"]["vectors"]
    assert (openvla["action"], openvla["digit"]) == (VALUES, OPENVLA_DIGITS)
    assert openvla["token_id"] == OPENVLA_TOKENS
    np.testing.assert_allclose(openvla["decoded"], OPENVLA_DECODED, rtol=1e-12)
    bridge = golden["bounds_q99_normalisation"]
    assert (bridge["q01"], bridge["q99"]) == (BRIDGE_Q01, BRIDGE_Q99)
    assert bridge["mask"] == BRIDGE_MASK
    assert bridge["example"]["action"] == BRIDGE_ACTION
    assert bridge["example"]["openvla_digit"] == BRIDGE_DIGITS
