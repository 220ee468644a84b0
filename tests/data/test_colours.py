"""Colour augmentation: what each number does, checked against its definition."""

import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rt2_jax.data.image import Colours
from rt2_jax.data.model_inputs import InputSpec, ModelInputs
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary

from .conftest import picture

MIDDLE = np.random.default_rng(0).integers(90, 160, (16, 16, 3)).astype(np.uint8)  # nothing clips
GREY = np.array([0.299, 0.587, 0.114])


def test_nothing_is_changed_by_ones_and_no_turn():
    np.testing.assert_array_equal(Colours().apply(MIDDLE), MIDDLE)


def test_brightness_multiplies_all_values():
    expected = np.clip(picture(1) * 1.3, 0, 255)
    assert abs(Colours(brightness=1.3).apply(picture(1)) - expected).max() <= 1


def test_contrast_multiplies_the_distance_to_the_mean_grey():
    mean = (MIDDLE @ GREY).mean()
    expected = mean + 0.5 * (MIDDLE - mean)
    assert abs(Colours(contrast=0.5).apply(MIDDLE) - expected).max() <= 1


def test_saturation_multiplies_the_distance_to_each_pixels_grey():
    grey = (MIDDLE @ GREY)[..., np.newaxis]
    for factor in (0.0, 0.5, 1.4):
        expected = grey + factor * (MIDDLE - grey)
        assert abs(Colours(saturation=factor).apply(MIDDLE) - expected).max() <= 1.5


@pytest.mark.parametrize("turn", [1 / 3, -1 / 3])
def test_a_third_of_a_turn_takes_red_towards_another_primary(turn):
    red = np.full((2, 2, 3), (150, 100, 100), np.uint8)
    found = Colours(hue=turn).apply(red)[0, 0] / 255
    hue = colorsys.rgb_to_hsv(*found)[0]
    assert abs(hue - turn % 1) < 0.06
    assert abs(found @ GREY * 255 - red[0, 0] @ GREY) < 1.5


@given(st.floats(0, 0.49), st.floats(0, 0.99), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_change_lies_within_its_limits(hue, limit, seed):
    limits = Colours(limit, limit, limit, hue)
    found = Colours.choose(limits, np.random.default_rng(seed))
    for value in (found.brightness, found.contrast, found.saturation):
        assert 1 - limit <= value <= 1 + limit
    assert -hue <= found.hue <= hue


def test_colours_change_in_training_only_and_for_all_pictures_of_an_example_alike():
    slots = (("front", 0), ("front", -1))
    spec = InputSpec(slots, (16, 16), 12, 6, contrast=0.4, saturation=0.4, hue=0.1)
    inputs = ModelInputs(spec, load_vocabulary())

    def make(rng):
        return inputs.observe(dict.fromkeys(slots, MIDDLE), "go", robot=True, rng=rng)["images"]

    np.testing.assert_array_equal(make(None)[0], MIDDLE)
    changed = make(np.random.default_rng(0))
    assert (changed[0] != MIDDLE).any()
    np.testing.assert_array_equal(*changed)
    np.testing.assert_array_equal(changed, make(np.random.default_rng(0)))
