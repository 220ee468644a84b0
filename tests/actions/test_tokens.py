import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.actions.binning import IntegerGrid, OpenVLACentres, RT1Truncating, UniformBins
from rt2_jax.actions.bounds import FixedBounds
from rt2_jax.actions.space import (
    ActionField,
    ActionSpace,
    language_table_action_space,
    rt2_action_space,
)
from rt2_jax.actions.statistics import resolve_bounds
from rt2_jax.actions.tokens import ActionTokens
from rt2_jax.actions.vocabulary import ActionVocabulary

pytest.importorskip("sentencepiece")

from rt2_jax.data.vocabulary import load_vocabulary  # noqa: E402

TOKENIZER = load_vocabulary("rt2_8k")
RT2_SPACE = rt2_action_space(
    "table_top",
    translation_bound_m=0.05,
    rotation_bound_rad=0.25,
    gripper_polarity="high_is_open",
    control_rate_hz=5,
)
LANGUAGE_TABLE = language_table_action_space()
# A discrete field with more levels than the integer grid, next to a continuous one.
TOOLS = ActionSpace(
    "tools",
    (
        ActionField("tool", "level", "none", "absolute", levels=tuple(map(str, range(40)))),
        ActionField("reach", "m", "base", "absolute", FixedBounds(0, 1)),
    ),
    5,
)
CODECS = [
    UniformBins(),
    UniformBins(bins=101),
    RT1Truncating(),
    OpenVLACentres(bins=255),
    OpenVLACentres(),
    IntegerGrid(),
    IntegerGrid(5, 25),
]
ROUTES = {
    "integer_pieces": ActionVocabulary.from_integer_pieces,
    "rare_pieces": ActionVocabulary.from_rare_pieces,
}


def bind(codec, space):
    return codec.bind(space, resolve_bounds(space))


def tokens_of(codec, space, route="integer_pieces"):
    bound = bind(codec, space)
    return ActionTokens(bound, ROUTES[route](TOKENIZER, bound.integers))


GRID = tokens_of(IntegerGrid(), LANGUAGE_TABLE)
RT2 = tokens_of(UniformBins(), RT2_SPACE)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("space", [RT2_SPACE, LANGUAGE_TABLE, TOOLS], ids=lambda s: s.name)
@pytest.mark.parametrize("codec", CODECS, ids=lambda c: f"{c.name}-{c.count}")
def test_every_action_comes_back_from_its_tokens_or_the_codec_is_refused(codec, space, route):
    codec = dataclasses.replace(codec, horizon=2)
    if route == "integer_pieces" and codec == OpenVLACentres(horizon=2):
        with pytest.raises(ValueError, match=r"1 of the integers [01]-256 are not .*: 256\. Use"):
            tokens_of(codec, space, route)
        return
    tokens = tokens_of(codec, space, route)
    bound = tokens.codec
    mask = tokens.token_mask(TOKENIZER.vocab_size)
    assert mask.shape == (2 * space.dimension, TOKENIZER.vocab_size)
    counts = [len(integers) for integers in bound.integers_per_position]
    assert mask.sum(axis=1).tolist() == counts

    @given(st.tuples(*(st.integers(0, count - 1) for count in counts)))
    def comes_back(flat):
        levels = np.reshape(flat, (2, space.dimension))
        ids = tokens.to_ids(levels)
        assert ids.dtype == np.int32
        assert mask[np.arange(len(ids)), ids].all()
        back = tokens.from_ids(ids)
        assert back.dtype == np.int32
        assert (back == levels).all()
        if route == "integer_pieces":
            assert TOKENIZER.encode(bound.to_text(levels)) == ids.tolist()

    comes_back()


def test_plus_five_centimetres_do_not_become_minus_five():
    text = GRID.codec.to_text(GRID.codec.encode(np.float32([[0.05, 0.05]])).levels)
    assert text == "5 5"
    action = GRID.codec.decode(GRID.from_ids(TOKENIZER.encode(text)))
    np.testing.assert_allclose(action, [[0.05, 0.05]], atol=1e-8)


def test_a_mask_allows_the_integers_of_each_field_and_nothing_else():
    grid = GRID.token_mask(TOKENIZER.vocab_size)
    signed = TOKENIZER.encode(" ".join(map(str, range(-10, 11))))
    assert [set(np.flatnonzero(row)) for row in grid] == [set(signed)] * 2
    rt2 = RT2.token_mask(TOKENIZER.vocab_size + 64)
    assert rt2.shape == (8, TOKENIZER.vocab_size + 64)
    assert set(np.flatnonzero(rt2[0])) == set(TOKENIZER.encode("0 1"))
    assert rt2.sum(axis=1).tolist() == [2] + [256] * 7


def test_a_mask_over_too_few_logits_is_refused():
    message = f"no mask over 100 logits: .* ids up to {max(RT2.vocabulary.ids)}"
    with pytest.raises(ValueError, match=message):
        RT2.token_mask(100)


def test_a_batch_of_levels_becomes_a_batch_of_ids():
    levels = np.arange(5 * 8).reshape(5, 1, 8) % 2
    ids = RT2.to_ids(levels)
    assert ids.shape == (5, 8)
    assert (ids[3] == RT2.to_ids(levels[3])).all()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("codec", "space", "needed", "made_for"),
    [
        (IntegerGrid(), LANGUAGE_TABLE, "-10 to 10", "-10, 11"),
        (OpenVLACentres(), LANGUAGE_TABLE, "1 to 256", "1, 257"),
        (UniformBins(bins=1000), RT2_SPACE, "0 to 999", "0, 1000"),
    ],
)
def test_a_vocabulary_that_lacks_integers_of_the_codec_is_refused(
    codec, space, needed, made_for, route
):
    message = (
        f"{codec.name!r} writes actions of {space.name!r} as integers {needed}, .* has 0 to 255: "
        rf"make it for range\({made_for}\), e.g. ActionVocabulary.from_{route}"
    )
    with pytest.raises(ValueError, match=message):
        ActionTokens(bind(codec, space), ROUTES[route](TOKENIZER))


def test_one_vocabulary_serves_codecs_of_several_robots():
    vocabulary = ActionVocabulary.from_integer_pieces(TOKENIZER, range(-10, 256))
    grid = ActionTokens(GRID.codec, vocabulary)
    assert grid.from_ids(TOKENIZER.encode("-10 10")).tolist() == [[0, 20]]
    rt2 = ActionTokens(RT2.codec, vocabulary)
    text = "1 128 91 241 5 101 127 217"
    assert rt2.codec.to_text(rt2.from_ids(TOKENIZER.encode(text))) == text
    with pytest.raises(ValueError, match="'position_delta_x'.* is -10, expected 0 to 255"):
        rt2.from_ids(TOKENIZER.encode("1 -10 91 241 5 101 127 217"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 128 91", r"action tokens: 3 integers, expected 8: 1 step\(s\) of \['terminate', "),
        ("1 128 91 241 5 101 127 217 0", "action tokens: 9 integers, expected 8"),
        ("2 128 91 241 5 101 127 217", "position 0 .*'terminate'.* is 2, expected 0 to 1"),
        ("1 128 91 hello", "token [0-9]+ .* at position 3 is no action token"),
    ],
)
def test_token_ids_that_are_no_action_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        RT2.from_ids(TOKENIZER.encode(text), TOKENIZER.id_to_piece)


def test_levels_that_do_not_exist_have_no_ids():
    with pytest.raises(ValueError, match="'effector_target_delta_y'.* is 11, expected -10 to 10"):
        GRID.to_ids([[0, 21]])
