"""Drawn answers are actions too, and say how likely the model found each token."""

import numpy as np
import pytest

from rt2_jax.actions.policy import Observation, check_policy_output
from rt2_jax.actions.sampling import Sampling
from rt2_jax.inference.engine import EnginePolicy, PolicyEngine, Question


def observation(seed, **changes):
    draw = np.random.default_rng(seed)
    images = {view: draw.integers(0, 256, (24, 32, 3), np.uint8) for view in ("front", "wrist")}
    return Observation(**{"images": images, "instruction": f"push cube {seed}", **changes})


@pytest.fixture(scope="module")
def engine(untrained):
    engine = PolicyEngine.from_checkpoint(untrained, (2,), most_samples=4)
    engine.warm_up()
    return engine


def test_after_the_warm_up_nothing_is_compiled_for_drawn_answers(engine):
    # The first test of its engine: what others ask in words would be compiled by then.
    programs = dict(engine.compiled.programs)
    policy = EnginePolicy(engine)
    for sampling in (None, Sampling(), Sampling(0.5, 3, 2, 9)):
        policy.infer_batch([observation(0, session="a")], sampling)
    assert engine.compiled.programs == programs
    assert engine.metadata["most_samples"] == 4


def test_drawn_answers_are_actions_and_the_first_is_the_answer(engine, small):
    [result] = engine.act([observation(0)], sampling=Sampling(num_samples=4, seed=3))
    samples = result["samples"]
    assert samples["actions"].shape == (4, 1, 8) and samples["tokens"].shape == (4, 8)
    for actions in samples["actions"]:
        check_policy_output(small.ARM, {"actions": actions})
    np.testing.assert_array_equal(result["actions"], samples["actions"][0])
    np.testing.assert_array_equal(result["tokens"], samples["tokens"][0])
    np.testing.assert_allclose(samples["scores"], samples["token_scores"].sum(1), rtol=1e-5)
    assert len(np.unique(samples["tokens"], axis=0)) > 1
    assert samples["plans"] == [""] * 4


def test_an_answer_is_the_same_in_any_batch_and_with_fewer_of_them(engine):
    sampling = Sampling(temperature=0.7, top_k=20, num_samples=4, seed=7)
    both = engine.act([observation(0), observation(1)], sampling=sampling)
    alone = engine.act([observation(1)], sampling=sampling)[0]
    np.testing.assert_array_equal(alone["samples"]["tokens"], both[1]["samples"]["tokens"])
    two = engine.act([observation(1)], sampling=Sampling(0.7, 20, 2, 7))[0]
    np.testing.assert_array_equal(two["samples"]["tokens"], alone["samples"]["tokens"][:2])
    assert both[0]["samples"]["tokens"].tolist() != both[1]["samples"]["tokens"].tolist()


def test_without_sampling_nothing_is_drawn_and_at_temperature_0_it_is_the_same(engine):
    [greedy] = engine.act([observation(0)])
    [cold] = engine.act([observation(0)], sampling=Sampling(temperature=0.0, num_samples=2))
    assert "samples" not in greedy
    for tokens, scores in zip(
        cold["samples"]["tokens"], cold["samples"]["token_scores"], strict=True
    ):
        np.testing.assert_array_equal(tokens, greedy["tokens"])
        np.testing.assert_allclose(scores, greedy["token_scores"], atol=1e-5)


def test_confidence_is_low_where_only_the_mask_made_it_an_action(engine):
    [unsure] = engine.act([observation(0)])
    np.testing.assert_allclose(unsure["token_scores"].sum(), unsure["score"], rtol=1e-5)
    # Among 256 bins it has a chance, among the 8,000 pieces that it knows nothing of hardly one.
    assert unsure["confidence"] < np.exp(unsure["token_scores"].min()) / 2


def test_answers_in_words_have_scores_and_can_be_drawn_and_cut(engine):
    question = Question("Answer in en: what?")
    [[greedy]] = engine.answers([question])
    assert greedy.text == engine.answer([question])[0]
    assert greedy.score == pytest.approx(float(greedy.token_scores.sum()))
    assert len(greedy.tokens) == len(greedy.token_scores) <= 10
    [drawn] = engine.answers([question], Sampling(num_samples=3))
    assert len({each.text for each in drawn}) > 1
    [[cut]] = engine.answers([question], max_tokens=2)
    np.testing.assert_array_equal(cut.tokens, greedy.tokens[:2])
    with pytest.raises(ValueError, match="max_tokens: found 11, expected 1 to 10, the longest"):
        engine.answers([question], max_tokens=11)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["decoder_only", "rt1"])
def test_every_kind_of_model_draws_actions(family, small, caches, tmp_path):
    description = small.describe(caches, family=family)
    state, _ = small.make_state(description, caches)
    engine = PolicyEngine(description, state.params, (1,), most_samples=3)
    [greedy] = engine.act([observation(0)])
    [result] = engine.act([observation(0)], sampling=Sampling(num_samples=3))
    assert result["samples"]["actions"].shape == (3, 1, 8)
    assert len(np.unique(result["samples"]["tokens"], axis=0)) > 1
    [cold] = engine.act([observation(0)], sampling=Sampling(temperature=0))
    np.testing.assert_array_equal(cold["tokens"], greedy["tokens"])
    np.testing.assert_allclose(greedy["token_scores"].sum(), greedy["score"], rtol=1e-5)


@pytest.mark.slow
def test_plans_are_drawn_too_and_an_action_follows(small, caches):
    description = small.describe(caches, plan=6)
    state, _ = small.make_state(description, caches)
    engine = PolicyEngine(description, state.params, (1,))
    [result] = engine.act([observation(0)], sampling=Sampling(num_samples=3))
    assert len(set(result["samples"]["plans"])) == 3
    assert result["samples"]["actions"].shape == (3, 1, 8)
