"""Hiding earlier action tokens from the decoder, in training only and for robots only."""

import dataclasses

import numpy as np
import pytest

from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.vocabulary import ActionVocabulary
from rt2_jax.data.examples import mixture_examples
from rt2_jax.data.manifest import open_caches
from rt2_jax.data.model_inputs import InputSpec, ModelInputs
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary

SPEC = InputSpec((("front", 0),), (8, 8), encoder_length=32, decoder_length=24)


def make(mixture, tmp_path, dropout):
    tokenizer = load_vocabulary()
    spec = dataclasses.replace(SPEC, action_input_dropout=dropout)
    vocabulary = ActionVocabulary.from_integer_pieces(tokenizer)
    inputs = ModelInputs(spec, tokenizer)
    return mixture_examples(
        mixture, open_caches(mixture, tmp_path), inputs, UniformBins(), vocabulary
    )


def test_the_hidden_part_is_as_asked_and_targets_stay(mixture, tmp_path):
    robot, web = make(mixture, tmp_path, 0.5)
    plain, plain_web = make(mixture, tmp_path, 0.0)
    hidden = shown = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        example, expected = robot.example(seed % len(robot), rng), plain.example(seed % len(robot))
        np.testing.assert_array_equal(
            example["decoder_target_tokens"], expected["decoder_target_tokens"]
        )
        inputs, whole = example["decoder_input_tokens"], expected["decoder_input_tokens"]
        assert np.all((inputs == whole) | (inputs == 0))
        hidden += np.sum((inputs == 0) & (whole > 0))
        shown += np.sum(inputs > 0)
        same = web.example(0, np.random.default_rng(seed))["decoder_input_tokens"]
        np.testing.assert_array_equal(same, plain_web.example(0)["decoder_input_tokens"])
    assert hidden / (hidden + shown) == pytest.approx(0.5, abs=0.1)


def test_evaluation_hides_nothing(mixture, tmp_path):
    for dropped, plain in zip(
        make(mixture, tmp_path, 1.0), make(mixture, tmp_path, 0.0), strict=True
    ):
        np.testing.assert_array_equal(
            dropped.example(0)["decoder_input_tokens"], plain.example(0)["decoder_input_tokens"]
        )


def test_a_part_outside_0_to_1_is_refused():
    with pytest.raises(ValueError, match="action_input_dropout: found 1.5, not in 0..1"):
        dataclasses.replace(SPEC, action_input_dropout=1.5)
