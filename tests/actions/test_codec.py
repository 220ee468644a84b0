import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.actions.binning import (
    IntegerGrid,
    OpenVLACentres,
    RT1Truncating,
    UniformBins,
    codec_from_json,
)
from rt2_jax.actions.bounds import FixedBounds
from rt2_jax.actions.codec import BoundCodec
from rt2_jax.actions.space import (
    ActionField,
    ActionSpace,
    language_table_action_space,
    rt2_action_space,
)
from rt2_jax.actions.statistics import resolve_bounds

SPACE = rt2_action_space(
    "table_top",
    translation_bound_m=0.05,
    rotation_bound_rad=0.25,
    gripper_polarity="high_is_open",
    control_rate_hz=5,
)
EVERY_CODEC = [UniformBins(), RT1Truncating(), OpenVLACentres(), IntegerGrid()]
RT2 = UniformBins().bind(SPACE, resolve_bounds(SPACE))
TABLE = language_table_action_space()
LANGUAGE_TABLE = IntegerGrid().bind(TABLE, resolve_bounds(TABLE))


def one_field(codec, low, high) -> BoundCodec:
    field = ActionField("x", "m", "base", "absolute", FixedBounds(low, high))
    space = ActionSpace("line", (field,), 5)
    return codec.bind(space, resolve_bounds(space))


@st.composite
def ranges(draw):
    """Low and high, at most a thousand ranges away from zero: float32 can hold the levels."""
    low = draw(st.floats(-100, 100))
    high = low + draw(st.floats(0.1, 100))
    return low, high


units = st.lists(st.floats(0, 1), min_size=1, max_size=20)
bins = st.sampled_from([2, 3, 16, 255, 256, 1000])


def encode_decode(bound, values):
    actions = np.array(values, np.float32).reshape(-1, 1, 1)
    encoded = bound.encode(actions)
    return encoded.levels.ravel(), bound.decode(encoded.levels).ravel(), encoded.clipped


@pytest.mark.parametrize(
    ("codec", "bins_of_error"),
    [(UniformBins, 0.5), (OpenVLACentres, 0.5), (RT1Truncating, 1.0)],
)
@given(ends=ranges(), unit=units, count=bins)
def test_the_error_inside_the_bounds_is_at_most_half_a_bin(codec, bins_of_error, ends, unit, count):
    low, high = ends
    values = np.clip(low + np.array(unit) * (high - low), low, high).astype(np.float32)
    _, decoded, _ = encode_decode(one_field(codec(bins=count), low, high), values)
    width = (high - low) / (count if codec is UniformBins else count - 1)
    rounding = 2 * np.spacing(np.float32(max(abs(low), abs(high))))
    assert np.abs(decoded.astype(float) - values).max() <= bins_of_error * width + rounding


@given(ends=ranges(), unit=units)
def test_the_error_on_the_integer_grid_is_at_most_half_a_step(ends, unit):
    low, high = ends
    values = np.clip(low + np.array(unit) * (high - low), low, high).astype(np.float32)
    _, decoded, _ = encode_decode(one_field(IntegerGrid(), low, high), values)
    rounding = 2 * np.spacing(np.float32(max(abs(low), abs(high))))
    assert np.abs(decoded.astype(float) - values).max() <= (high - low) / 40 + rounding


@pytest.mark.parametrize("codec", EVERY_CODEC)
@given(ends=ranges(), values=st.lists(st.floats(-300, 300, width=32), min_size=2))
def test_a_greater_value_never_gets_a_lesser_level_or_value(codec, ends, values):
    levels, decoded, _ = encode_decode(one_field(codec, *ends), sorted(values))
    assert (np.diff(levels) >= 0).all()
    assert (np.diff(decoded) >= 0).all()


@pytest.mark.parametrize("codec", [UniformBins(), IntegerGrid()])
@given(ends=ranges())
def test_what_was_decoded_is_encoded_to_the_same_level(codec, ends):
    bound = one_field(codec, *ends)
    levels = np.arange(codec.count).reshape(-1, 1, 1)
    assert (bound.encode(bound.decode(levels)).levels == levels).all()


def test_rt1s_decoded_actions_may_be_one_level_lower_when_encoded_again():
    bound = one_field(RT1Truncating(), -1, 1)
    levels = np.arange(256).reshape(-1, 1, 1)
    again = bound.encode(bound.decode(levels)).levels
    assert (levels - again).max() == 1
    assert (levels - again).sum() == 127


@given(ends=ranges())
def test_the_ends_of_the_bounds_are_the_first_and_the_last_level(ends):
    for codec in EVERY_CODEC:
        levels, _, _ = encode_decode(one_field(codec, *np.float32(ends)), ends)
        assert levels.tolist() == [0, codec.count - 1]


@pytest.mark.parametrize("codec", EVERY_CODEC)
def test_values_outside_the_bounds_are_clipped_and_counted_by_field(codec):
    bound = codec.bind(SPACE, resolve_bounds(SPACE))
    action = np.array([1, 0.06, -0.06, 0, 0, 9, 0, 0.5], np.float32)
    inside = np.array([0, 0.05, -0.05, 0, 0, 0.25, 0, 0.5], np.float32)
    encoded = bound.encode(np.stack([action, inside, action])[:, None])
    assert encoded.clipped.tolist() == [0, 2, 2, 0, 0, 2, 0, 0]
    assert (encoded.levels[0, 0, 1:] == encoded.levels[1, 0, 1:]).all()


def test_a_float32_at_a_bound_is_not_outside_it():
    assert float(np.float32(-0.1)) < -0.1
    assert LANGUAGE_TABLE.encode(np.float32([[-0.1, 0.1]])).clipped.tolist() == [0, 0]


@pytest.mark.parametrize("codec", EVERY_CODEC)
def test_every_codec_writes_a_discrete_field_as_its_levels_index(codec):
    bound = codec.bind(SPACE, resolve_bounds(SPACE))
    for level in (0, 1):
        action = np.float32([[level, 0, 0, 0, 0, 0, 0, 1]])
        text = bound.to_text(bound.encode(action).levels)
        assert text.split(" ")[0] == str(level)
        assert bound.decode(bound.from_text(text))[0, 0] == level


def test_the_integers_of_the_text_are_not_always_the_levels():
    tools = ActionField("tool", "level", "none", "absolute", levels=tuple("abcdefghijklm"))
    space = ActionSpace("tools", (tools, *TABLE.fields), 5)
    bound = IntegerGrid(horizon=2).bind(space, resolve_bounds(space))
    assert bound.integers_per_position == [range(13), range(-10, 11), range(-10, 11)] * 2
    assert bound.integers == range(-10, 13)
    levels = np.array([[12, 0, 20], [0, 10, 11]])
    assert bound.to_integers(levels).tolist() == [[12, -10, 10], [0, 0, 1]]
    assert (bound.from_integers([12, -10, 10, 0, 0, 1]) == levels).all()
    with pytest.raises(ValueError, match=r"integers: 5 integers, expected 6: 2 step\(s\) of"):
        bound.from_integers([12, -10, 10, 0, 0])


def test_a_decoder_learns_which_integers_each_position_may_hold():
    chunk = UniformBins(horizon=2).bind(SPACE, resolve_bounds(SPACE))
    assert chunk.integers_per_position == ([range(2)] + [range(256)] * 7) * 2
    assert LANGUAGE_TABLE.integers_per_position == [range(-10, 11)] * 2


def test_the_papers_string_becomes_the_action_that_it_says():
    levels = RT2.from_text("1 128 91 241 5 101 127 217")
    action = RT2.decode(levels)
    assert action.shape == (1, 8)
    assert action.dtype == np.float32
    assert action[0, 0] == 1
    assert action[0, 2] == pytest.approx(-0.05 + 0.1 * 91.5 / 256)
    assert action[0, 4] == pytest.approx(-0.25 + 0.5 * 5.5 / 256)
    assert action[0, 7] == pytest.approx(217.5 / 256)
    assert RT2.to_text(levels) == "1 128 91 241 5 101 127 217"


def test_language_table_is_written_as_signed_centimetres():
    encoded = LANGUAGE_TABLE.encode(np.float32([[0.03, -0.1]]))
    assert LANGUAGE_TABLE.to_text(encoded.levels) == "3 -10"
    decoded = LANGUAGE_TABLE.decode(LANGUAGE_TABLE.from_text("-7 0"))
    np.testing.assert_allclose(decoded, [[-0.07, 0]], atol=1e-8)


@pytest.mark.parametrize("codec", EVERY_CODEC)
@given(data=st.data())
def test_every_chunk_of_levels_comes_back_from_its_text(codec, data):
    horizon = data.draw(st.integers(1, 4))
    bound = dataclasses.replace(codec, horizon=horizon).bind(SPACE, resolve_bounds(SPACE))
    levels = [data.draw(st.integers(0, len(r) - 1)) for r in bound.integers_per_position]
    chunk = np.array(levels).reshape(horizon, 8)
    back = bound.from_text(bound.to_text(chunk))
    assert back.dtype == np.int32
    assert (back == chunk).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 128 91", ": 3 words between single spaces, expected 8: 1 step"),
        ("", ": 1 words between single spaces, expected 8"),
        ("1 128 91 241 5 101 127 217 0", ": 9 words"),
        ("1  128 91 241 5 101 127 217", ": 9 words"),
        ("1 128 91 241 5 101 127 217 ", ": 9 words"),
        ("1 128 91 x 5 101 127 217", "position 3 .*'position_delta_z'.* is 'x', expected a plain"),
        ("1 128 91 24.1 5 101 127 217", "is '24.1'"),
        ("1 0128 91 241 5 101 127 217", "is '0128'"),
        ("1 +12 91 241 5 101 127 217", r"is '\+12'"),
        ("1 -0 91 241 5 101 127 217", "is '-0'"),
        ("1 １ 91 241 5 101 127 217", "is '１'"),
        ("1 128 91 241 5 101 127 256", "position 7 .*'gripper_extension'.* is 256, expected 0 to"),
        ("1 -1 91 241 5 101 127 217", "position 1 .*'position_delta_x'.* is -1, expected 0 to 255"),
        ("2 128 91 241 5 101 127 217", "position 0 .*'terminate'.* is 2, expected 0 to 1"),
        ("9999999999 0 0 0 0 0 0 0", "is '9999999999'"),
    ],
)
def test_text_that_is_no_action_is_refused_by_position_field_and_value(text, message):
    with pytest.raises(ValueError, match=message):
        RT2.from_text(text)


def test_a_refusal_in_a_chunk_names_the_step():
    chunk = UniformBins(horizon=3).bind(SPACE, resolve_bounds(SPACE))
    text = "1 128 91 241 5 101 127 217 1 128 91 241 5 101 300 217 1 128 91 241 5 101 127 217"
    with pytest.raises(
        ValueError, match=r"position 14 \(step 1, field 'rotation_delta_z'\) is 300"
    ):
        chunk.from_text(text)


def test_language_tables_refusal_speaks_in_its_own_integers():
    with pytest.raises(ValueError, match="is -11, expected -10 to 10"):
        LANGUAGE_TABLE.from_text("3 -11")


@pytest.mark.parametrize("codec", EVERY_CODEC)
def test_a_level_out_of_range_is_an_error_and_never_an_extreme_action(codec):
    bound = codec.bind(SPACE, resolve_bounds(SPACE))
    for level in (-1, codec.count):
        with pytest.raises(ValueError, match="position 3 .*'position_delta_z'.*expected"):
            bound.decode(np.array([[1, 0, 0, level, 0, 0, 0, 0]]))


@pytest.mark.parametrize(
    ("levels", "error", "message"),
    [
        (np.zeros((1, 7), int), ValueError, r"\[..., K=1, D=8\], found \[1, 7\]"),
        (np.zeros((2, 8), int), ValueError, r"\[..., K=1, D=8\], found \[2, 8\]"),
        (np.zeros(8, int), ValueError, r"\[..., K=1, D=8\], found \[8\]"),
        (np.zeros((1, 8)), TypeError, "expected integers, found dtype float64"),
    ],
)
def test_levels_of_a_wrong_kind_or_shape_are_refused(levels, error, message):
    for read in (RT2.decode, RT2.to_text):
        with pytest.raises(error, match=message):
            read(levels)


def test_one_text_holds_one_chunk():
    with pytest.raises(ValueError, match=r"one text holds levels \[K, D\], found \[5, 1, 8\]"):
        RT2.to_text(np.zeros((5, 1, 8), int))


def test_actions_that_are_no_chunks_are_refused():
    with pytest.raises(ValueError, match=r"episode 3: expected shape \[..., K=1, D=8\], found"):
        RT2.encode(np.zeros((2, 8)), "episode 3")
    with pytest.raises(ValueError, match=r"'position_delta_y' at step \[4, 0\] is nan"):
        actions = np.zeros((5, 1, 8))
        actions[4, 0, 2] = np.nan
        RT2.encode(actions)


def test_bounds_of_another_space_are_refused():
    with pytest.raises(ValueError, match="not for 'table_top' .*resolve them again"):
        UniformBins().bind(SPACE, resolve_bounds(TABLE))


def test_bounds_too_narrow_for_float32_are_refused():
    with pytest.raises(ValueError, match="'x': float32 cannot tell 256 levels apart"):
        one_field(UniformBins(), 1000, 1000.01)


@pytest.mark.parametrize("codec", [*EVERY_CODEC, UniformBins(bins=1024, horizon=8)])
def test_a_codec_comes_back_from_json_with_its_hash(codec):
    back = codec_from_json(json.loads(json.dumps(codec.to_json())))
    assert back == codec
    assert back.hash == codec.hash


def test_the_codecs_hashes_never_drift():
    assert [codec.hash[:12] for codec in EVERY_CODEC] == [
        "bba33458cb31",
        "69ddbe1c6bf0",
        "90f4cd1b5de6",
        "c385bad537cc",
    ]


def test_the_hash_changes_with_every_parameter():
    codecs = [*EVERY_CODEC, UniformBins(bins=255), UniformBins(horizon=2), IntegerGrid(maximum=11)]
    assert len({codec.hash for codec in codecs}) == len(codecs)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"name": "fast"}, ValueError, "'fast' is not known; known: .*'openvla_centres'.*'rt2_un"),
        ([], ValueError, "'list' is not known"),
        ({**UniformBins().to_json(), "version": 2}, ValueError, "has version 2, this code reads 1"),
        ({**UniformBins().to_json(), "minimum": 2}, KeyError, "unknown keys .*minimum"),
        ({"name": "rt2_uniform", "version": 1}, KeyError, "missing keys .*bins.*horizon"),
        ({**UniformBins().to_json(), "bins": 256.0}, TypeError, "bins must be an integer, found 2"),
        ({**UniformBins().to_json(), "bins": "256"}, TypeError, "bins must be .*, found '256'"),
        ({**UniformBins().to_json(), "bins": True}, TypeError, "bins must be .*, found True"),
        ({**UniformBins().to_json(), "horizon": True}, TypeError, "horizon must be .*, found True"),
        ({**UniformBins().to_json(), "bins": 1}, ValueError, "two or more levels, found 1"),
        ({**UniformBins().to_json(), "horizon": 0}, ValueError, "horizon must be >= 1, found 0"),
        ({**IntegerGrid().to_json(), "minimum": 10}, ValueError, "two or more levels, found 1"),
    ],
)
def test_a_codec_that_this_code_does_not_know_is_refused(data, error, message):
    with pytest.raises(error, match=message):
        codec_from_json(data)
