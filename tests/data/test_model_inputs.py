"""Model features: the same for training and serving, and nothing is cut short in silence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt2_jax.data.image import Crop, decode_image, resize
from rt2_jax.data.model_inputs import InputSpec, ModelInputs
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary

from .conftest import encoded, picture

SPEC = InputSpec((("front", 0), ("front", -1)), (8, 8), 12, 6)
TOKENIZER = load_vocabulary()
INPUTS = ModelInputs(SPEC, TOKENIZER)


def test_a_missing_picture_is_masked():
    found = INPUTS.observe({("front", 0): picture(0)}, "go", robot=True)
    assert found["image_mask"].tolist() == [True, False]
    assert found["images"].shape == (2, 8, 8, 3) and found["images"].dtype == np.uint8
    assert found["images"][0].any() and not found["images"][1].any()


def test_a_prompt_ends_and_is_padded():
    ids = TOKENIZER.encode("put the cup down")
    tokens = INPUTS.observe({}, "put the cup down", robot=True)["encoder_input_tokens"]
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [*ids, TOKENIZER.eos_id] + [0] * (11 - len(ids))


def test_an_answer_is_shifted_by_one_and_weighted_up_to_its_end():
    found = INPUTS.answer([7, 8, 9])
    eos = TOKENIZER.eos_id
    assert found["decoder_target_tokens"].tolist() == [7, 8, 9, eos, 0, 0]
    assert found["decoder_input_tokens"].tolist() == [0, 7, 8, 9, eos, 0]
    assert found["decoder_loss_weights"].tolist() == [1, 1, 1, 1, 0, 0]
    part = INPUTS.answer([7, 8, 9], weighted=1)["decoder_loss_weights"]
    assert part.tolist() == [1, 0, 0, 1, 0, 0]


def test_encoded_and_decoded_pictures_give_the_same_features():
    image = picture(3)
    a = INPUTS.observe({("front", 0): encoded(image)}, "go", robot=True)
    b = INPUTS.observe({("front", 0): image}, "go", robot=True)
    np.testing.assert_array_equal(a["images"], b["images"])


def test_a_picture_of_the_right_size_is_left_as_it_is():
    image = picture(1, (8, 8))
    found = INPUTS.observe({("front", 0): image}, "go", robot=True)
    np.testing.assert_array_equal(found["images"][0], image)


def test_what_is_too_long_is_refused_with_its_text():
    with pytest.raises(ValueError, match="prompt 'a long .*more than the 12 that the model"):
        INPUTS.observe({}, "a long " * 20, robot=True)
    with pytest.raises(ValueError, match="task 'x': 6 tokens and the end .* more than the 6"):
        INPUTS.answer([5] * 6, where="task 'x'")


def test_a_picture_without_a_slot_is_refused():
    with pytest.raises(KeyError, match="pictures for .*wrist.*the model has the image slots"):
        INPUTS.observe({("wrist", 0): picture(0)}, "go", robot=True)


def test_a_damaged_picture_is_refused_by_its_view():
    with pytest.raises(ValueError, match="observation, view 'front': 3 bytes that are no whole"):
        INPUTS.observe({("front", 0): b"abc"}, "go", robot=True)


def test_without_a_generator_a_robot_picture_shows_the_centre():
    spec = InputSpec((("front", 0),), (4, 4), 12, 6, robot_crop=0.5)
    image = np.zeros((8, 8, 3), np.uint8)
    image[2:6, 2:6] = 200
    inputs = ModelInputs(spec, TOKENIZER)
    assert (inputs.observe({("front", 0): image}, "go", robot=True)["images"] == 200).all()
    assert (inputs.observe({("front", 0): image}, "go", robot=False)["images"] < 200).any()


def test_augmentation_is_a_function_of_its_generator():
    spec = InputSpec((("front", 0),), (8, 8), 12, 6, robot_crop=0.8, brightness=0.3)
    inputs = ModelInputs(spec, TOKENIZER)
    image = picture(2, (32, 32))

    def make(seed):
        rng = np.random.default_rng(seed)
        return inputs.observe({("front", 0): image}, "go", robot=True, rng=rng)["images"]

    np.testing.assert_array_equal(make(1), make(1))
    assert (make(1) != make(2)).any()


def test_two_pictures_of_an_example_are_cropped_alike():
    spec = InputSpec((("front", 0), ("front", -1)), (8, 8), 12, 6, robot_crop=0.7)
    image = picture(2, (32, 32))
    found = ModelInputs(spec, TOKENIZER).observe(
        {("front", 0): image, ("front", -1): image},
        "go",
        robot=True,
        rng=np.random.default_rng(0),
    )
    np.testing.assert_array_equal(*found["images"])


@given(st.floats(0.1, 1), st.integers(0, 1000))
def test_a_crop_lies_inside_the_picture(size, seed):
    crop = Crop.choose(size, np.random.default_rng(seed))
    for edge in (crop.top, crop.left):
        assert 0 <= edge <= edge + crop.size <= 1 + 1e-9


@given(st.integers(8, 40), st.integers(8, 40), st.integers(0, 3), st.integers(0, 3))
def test_resizing_keeps_places_as_fractions_of_the_sides(height, width, row, column):
    image = np.zeros((height * 4, width * 4, 3), np.uint8)
    image[row * height : (row + 1) * height, column * width : (column + 1) * width] = 255
    small = resize(image, (16, 16))[..., 0].astype(float)
    rows, columns = np.indices(small.shape)
    assert abs((small * rows).sum() / small.sum() - (4 * row + 1.5)) < 0.5
    assert abs((small * columns).sum() / small.sum() - (4 * column + 1.5)) < 0.5


def test_a_grey_picture_is_read_as_colour():
    assert decode_image(encoded(np.full((4, 5), 9, np.uint8))).shape == (4, 5, 3)


def test_a_spec_of_before_colours_were_changed_is_read():
    data = SPEC.to_json()
    for name in ("contrast", "saturation", "hue"):
        del data[name]
    assert InputSpec.from_json(data) == SPEC


def test_a_spec_survives_json_and_refuses_unknown_keys():
    assert InputSpec.from_json(SPEC.to_json()) == SPEC
    with pytest.raises(KeyError, match="unknown keys \\['zoom'\\]"):
        InputSpec.from_json({**SPEC.to_json(), "zoom": 1})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_slots": ()}, "expected some"),
        ({"image_slots": (("front", 0), ("front", 0))}, "each once"),
        ({"image_slots": (("front", 1),)}, "time 0 or negative"),
        ({"encoder_length": 0}, "expected sizes and lengths of 1 or more"),
        ({"robot_crop": 0.0}, "robot_crop: found 0.0"),
        ({"brightness": 1.0}, "brightness: found 1.0"),
        ({"hue": 0.5}, "hue: found 0.5, expected 0 to below 0.5"),
    ],
)
def test_a_wrong_spec_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        InputSpec(**{**SPEC.__dict__, **values})


def test_a_vocabulary_that_pads_otherwise_is_refused():
    class Other:
        pad_id, eos_id = -1, 2

    with pytest.raises(ValueError, match="pads with id -1 and ends with 2, expected 0"):
        ModelInputs(SPEC, Other())
