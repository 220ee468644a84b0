"""Prompt, pictures and answer as the one row that a decoder-only model reads."""

import numpy as np
import pytest

from rt2_jax.data.model_inputs import InputSpec, ModelInputs
from rt2_jax.data.prompt_template import fill_prompt
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary
from rt2_jax.models.config import PLACEHOLDER

SLOTS = (("front", 0), ("wrist", 0))


@pytest.fixture(scope="module")
def tokenizer():
    return load_vocabulary()


def make(tokenizer, **changes):
    return ModelInputs(
        InputSpec(SLOTS, (8, 8), 16, 6, **{"placeholders_per_image": 3, **changes}), tokenizer
    )


def test_pictures_stand_before_the_prompt_which_ends_where_the_answer_begins(tokenizer):
    inputs = make(tokenizer)
    words = tokenizer.encode("pick the cup")
    observed = inputs.observe({}, "pick the cup", robot=False)
    row = inputs.complete(observed, inputs.answer([40, 41]))
    start = inputs.spec.answer_start
    assert start == 2 * 3 + 16
    shown, targets = row["decoder_input_tokens"], row["decoder_target_tokens"]
    tail = [*[PLACEHOLDER] * 6, *words, tokenizer.eos_id]
    assert shown[: start + 1].tolist() == [0] * (start + 1 - len(tail)) + tail
    assert targets[start:].tolist() == [40, 41, tokenizer.eos_id, 0, 0, 0]
    np.testing.assert_array_equal(shown[1:], targets[:-1])
    assert row["decoder_loss_weights"].tolist() == [0] * start + [1, 1, 1, 0, 0, 0]
    assert row["decoder_causal_attention"].tolist() == [1] * (start + 1) + [0] * 5
    for name, value in inputs.observed(row).items():
        np.testing.assert_array_equal(value, observed[name])


def test_a_prompt_says_where_its_pictures_stand(tokenizer):
    inputs = make(tokenizer)
    prompt = fill_prompt("Given <img> and <img>. Q: {text}?", "what")
    observed = inputs.observe({}, prompt, robot=False)
    expected = [
        *tokenizer.encode("Given "),
        *[PLACEHOLDER] * 3,
        *tokenizer.encode(" and "),
        *[PLACEHOLDER] * 3,
        *tokenizer.encode(". Q: what?"),
        tokenizer.eos_id,
    ]
    assert observed["decoder_input_tokens"].tolist()[-len(expected) :] == expected


def test_a_prompt_may_end_with_a_text_of_its_own(tokenizer):
    inputs = make(tokenizer, prompt_end=" A:")
    tokens = inputs.observe({}, "Q: what?", robot=False)["decoder_input_tokens"].tolist()
    end = tokenizer.encode(" A:")
    assert tokens[-len(end) :] == end and tokenizer.eos_id not in tokens


@pytest.mark.parametrize(
    ("changes", "prompt", "message"),
    [
        ({}, "Given <img>, what?", "found 1 times <img>, expected it 2 times"),
        ({}, "word " * 30, "tokens with its beginning and end are more than the 16"),
        ({"placeholders_per_image": 0}, "Given <img>?", "reads all pictures before the text"),
    ],
)
def test_a_prompt_that_does_not_fit_is_refused(tokenizer, changes, prompt, message):
    with pytest.raises(ValueError, match=message):
        make(tokenizer, **changes).observe({}, fill_prompt(prompt, ""), robot=False)


def test_a_text_that_says_img_stays_a_text(tokenizer):
    inputs = make(tokenizer)
    tokens = inputs.observe({}, fill_prompt("Q: {text}", "what is <img>"), robot=False)
    words = [*tokenizer.encode("Q: what is <img>"), tokenizer.eos_id]
    row = tokens["decoder_input_tokens"].tolist()
    assert row[-len(words) - 6 :] == [PLACEHOLDER] * 6 + words
    encoder = make(tokenizer, placeholders_per_image=0)
    encoder.observe({}, fill_prompt("Q: {text}", "what is <img>"), robot=False)


def test_the_specification_survives_json_and_older_ones_are_of_encoders(tokenizer):
    spec = make(tokenizer, prompt_end="\n").spec
    assert InputSpec.from_json(spec.to_json()) == spec
    older = InputSpec(SLOTS, (8, 8), 12, 6).to_json()
    del older["placeholders_per_image"], older["prompt_end"]
    assert InputSpec.from_json(older) == InputSpec(SLOTS, (8, 8), 12, 6)
