"""Plans: what a robot's answer says before its action."""

import dataclasses
import itertools

import numpy as np
import pytest

from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.vocabulary import ActionVocabulary
from rt2_jax.data.cache_writer import cache_task
from rt2_jax.data.examples import mixture_examples
from rt2_jax.data.manifest import open_caches
from rt2_jax.data.model_inputs import InputSpec, ModelInputs
from rt2_jax.data.places import place_text
from rt2_jax.data.resolve import resolve_mixture
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary

SPEC = InputSpec((("front", 0),), (8, 8), encoder_length=32, decoder_length=24)
PLAN = "take the cup"
END = 1


@pytest.fixture
def make(robot, tmp_path):
    """`make(plans, **spec)`: the examples of a robot task whose steps have these plans in turn."""

    numbers = itertools.count()

    def make(plans, **changes):
        task = robot(f"arm_{next(numbers)}", plans=plans)
        cache_task(task, tmp_path)
        manifest = resolve_mixture(task.name, tmp_path)
        tokenizer = load_vocabulary()
        inputs = ModelInputs(dataclasses.replace(SPEC, **changes), tokenizer)
        vocabulary = ActionVocabulary.from_integer_pieces(tokenizer)
        caches = open_caches(manifest, tmp_path)
        return mixture_examples(manifest, caches, inputs, UniformBins(), vocabulary)[0]

    return make


def test_the_plan_comes_first_and_actions_keep_their_place(make):
    examples, words = make([PLAN, ""], plan_length=8), load_vocabulary().encode(PLAN)
    planned, silent = examples.example(0), examples.example(1)
    target, weights = planned["decoder_target_tokens"], planned["decoder_loss_weights"]
    assert target[:8].tolist() == [*words, END, *[0] * (7 - len(words))]
    assert weights[:8].tolist() == [1] * (len(words) + 1) + [0] * (7 - len(words))
    assert silent["decoder_target_tokens"][:8].tolist() == [END, *[0] * 7]
    for example in (planned, silent):
        assert np.all(example["decoder_target_tokens"][8:16] > END)
        assert example["decoder_target_tokens"][16:].tolist() == [END, *[0] * 7]
        assert example["decoder_loss_weights"][8:].tolist() == [1] * 9 + [0] * 7
        assert example["decoder_input_tokens"].tolist() == [
            0,
            *example["decoder_target_tokens"][:-1],
        ]


def test_a_model_without_plans_has_the_action_alone(make):
    planned, plain = make([PLAN], plan_length=8).example(3), make([PLAN]).example(3)
    np.testing.assert_array_equal(
        plain["decoder_target_tokens"][:9], planned["decoder_target_tokens"][8:17]
    )
    assert plain["decoder_target_tokens"][9:].tolist() == [0] * 15


def test_a_plan_that_is_too_long_is_refused_before_the_first_batch(make):
    with pytest.raises(ValueError, match="task 'arm_0': plan 'take the cup': .* the 3 that"):
        make([PLAN], plan_length=3)


def test_places_in_plans_and_crops_are_refused_together(make):
    place = "cup" + place_text(0.5, 0.25)
    make([place], plan_length=8)
    make([PLAN], plan_length=8, robot_crop=0.9)
    with pytest.raises(ValueError, match="cup<loc.*robot_crop 0.9 would move; set one of"):
        make([PLAN, place], plan_length=8, robot_crop=0.9)


@pytest.mark.parametrize("length", [-1, 24])
def test_a_plan_needs_room_for_an_action_behind_it(length):
    with pytest.raises(ValueError, match=f"plan_length: found {length}, expected 0 up to below"):
        dataclasses.replace(SPEC, plan_length=length)
