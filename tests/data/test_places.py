"""Places as text: what is written can be read, as near as the levels allow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.data.places import LOCATIONS, parse_places, place_text
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary

FRACTIONS = st.floats(0, 1)


@given(FRACTIONS, FRACTIONS, st.integers(1, LOCATIONS))
def test_a_place_comes_back_from_its_text_to_half_a_level(y, x, levels):
    ((found_y, found_x),) = parse_places(f"red cube{place_text(y, x, levels)}")
    # Pieces are whole: half of one may come on top.
    error = 0.5 / levels + 0.5 / LOCATIONS + 1e-6
    assert abs(found_y - y) <= error and abs(found_x - x) <= error


@given(FRACTIONS, FRACTIONS, st.integers(1, LOCATIONS))
def test_what_was_read_is_written_the_same(y, x, levels):
    text = place_text(y, x, levels)
    assert place_text(*parse_places(text)[0], levels) == text


def test_rows_come_before_columns_from_the_top_left_corner():
    assert place_text(0, 1) == "<loc0000><loc1023>"
    assert place_text(1, 0, 16) == "<loc0992><loc0032>"
    assert place_text(0.5, 0.5, 1) == "<loc0512><loc0512>"


def test_as_many_pieces_are_used_as_there_are_levels():
    pieces = {place_text(i / 2000, 0, 16) for i in range(2001)}
    assert len(pieces) == 16


def test_all_places_of_a_text_are_read_in_order():
    text = f"a b{place_text(0.1, 0.2)} c d <loc0512> <loc0256>"
    (first, second) = parse_places(text)
    assert first == pytest.approx((0.1, 0.2), abs=1e-3)
    assert second == pytest.approx((0.5, 0.25), abs=1e-3)


@pytest.mark.parametrize(
    "text", ["", "red cube", "<loc0512>", "<loc512><loc512>", "<loc0512><loc1024>", "<loc0512> a"]
)
def test_what_is_no_place_is_not_read_as_one(text):
    assert parse_places(text) == []


@pytest.mark.parametrize(
    ("y", "x", "levels"),
    [(-0.01, 0, 16), (0, 1.01, 16), (float("nan"), 0, 16), (0, 0, 0), (0, 0, 1025)],
)
def test_a_place_outside_the_picture_is_refused(y, x, levels):
    with pytest.raises(ValueError, match="place: found .*expected fractions 0..1 .* 1 to 1024"):
        place_text(y, x, levels)


def test_every_piece_after_a_name_is_one_token_of_the_vocabulary():
    vocabulary = load_vocabulary()
    name = vocabulary.encode("red cube")
    ids = [vocabulary.encode(f"red cube<loc{i:04d}>") for i in range(LOCATIONS)]
    assert all(each[:-1] == name for each in ids)
    assert len({each[-1] for each in ids}) == LOCATIONS
