"""A model in this process drives the world; what it was trained on decides what it sees."""

import numpy as np
import pytest

from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.statistics import StatisticsTable, compute_statistics
from rt2_jax.actions.vocabulary import ActionVocabulary
from rt2_jax.data.manifest import Manifest, MixtureTask
from rt2_jax.data.model_inputs import InputSpec
from rt2_jax.data.task_info import ROBOT_PROMPT, RobotInfo, TaskInfo
from rt2_jax.data.vocabulary.tokenizer import load_vocabulary
from rt2_jax.evaluation.closed_loop import evaluate
from rt2_jax.evaluation.models import seen_pictures
from rt2_jax.evaluation.policy_sources import LocalPolicy, NamedPolicy
from rt2_jax.evaluation.suite import Suite
from rt2_jax.models.config import TextConfig, VisionConfig, VisionLanguageConfig
from rt2_jax.sim.render import RenderSettings
from rt2_jax.sim.simulation import EMBODIMENT, STATE_FIELDS, TABLETOP_ACTIONS
from rt2_jax.training.description import RunDescription

SIZE = (16, 16)
SUITE = Suite(episodes=2, render=RenderSettings(height=16, width=16))


@pytest.fixture(scope="module")
def policy():
    """An untrained model of the table-top robot."""
    jax = pytest.importorskip("jax")
    from rt2_jax.inference.engine import EnginePolicy, PolicyEngine, abstract_params

    tokenizer = load_vocabulary()
    robot = RobotInfo(EMBODIMENT, TABLETOP_ACTIONS, STATE_FIELDS)
    task = TaskInfo("reach", ROBOT_PROMPT, ("front",), SIZE, robot)
    statistics = compute_statistics(TABLETOP_ACTIONS, EMBODIMENT, [np.zeros((2, 8), np.float32)])
    slots, length = (("front", 0),), 24
    description = RunDescription(
        model=VisionLanguageConfig(
            vision=VisionConfig(
                image_size=SIZE, patch_size=8, embed_dim=16, num_layers=1, num_heads=2, mlp_dim=16
            ),
            text=TextConfig(
                vocab_size=tokenizer.vocab_size,
                embed_dim=16,
                encoder_layers=1,
                decoder_layers=1,
                num_heads=2,
                head_dim=8,
                mlp_dim=16,
            ),
            image_slots=slots,
        ),
        inputs=InputSpec(slots, SIZE, length, 10),
        tokenizer=tokenizer,
        manifest=Manifest(
            "tabletop",
            "train",
            (MixtureTask(task, 1.0, 10, 1, "0" * 64),),
            StatisticsTable((statistics,)),
        ),
        codec=UniformBins(),
        action_vocabulary=ActionVocabulary.from_integer_pieces(tokenizer),
        seed=0,
        global_batch_size=2,
        example_input={
            "images": np.zeros((1, *SIZE, 3), np.uint8),
            "image_mask": np.ones(1, bool),
            "encoder_input_tokens": np.ones(length, np.int32),
        },
    )
    draw = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: draw.normal(0, 0.5, leaf.shape).astype(leaf.dtype),
        abstract_params(description),
    )
    engine = PolicyEngine(description, params, (1, 4), "checkpoint_0")
    engine.warm_up()
    return EnginePolicy(engine)


def test_an_engine_plays_the_same_episodes_alone_and_in_batches(policy):
    source = LocalPolicy(policy, "untrained", policy.metadata)
    alone, together = (evaluate(SUITE, source, parallel=parallel) for parallel in (1, 3))
    assert [(r.outcome, r.actions) for r in alone.results] == [
        (r.outcome, r.actions) for r in together.results
    ]
    assert alone.identity == together.identity
    assert len({action for r in alone.results for action in r.actions}) > 1


def test_an_untrained_model_does_not_succeed(policy):
    source = LocalPolicy(policy, "untrained", policy.metadata)
    evaluation = evaluate(SUITE, source)
    assert [evaluation.rate(skill).successes for skill in SUITE.skills] == [0, 0]


def test_a_model_sees_the_pictures_that_it_was_trained_on(policy):
    source = LocalPolicy(policy, "untrained", policy.metadata)
    assert seen_pictures(source, ("top",), (64, 64)) == (("front",), SIZE)
    assert seen_pictures(NamedPolicy("expert"), ("top",), (64, 64)) == (("top",), (64, 64))


def test_other_weights_are_another_policy_and_other_batches_are_not(policy):
    def hash_of(**change):
        return LocalPolicy(policy, "x", {**policy.metadata, **change}).policy_hash

    assert hash_of(batch_sizes=[1]) == hash_of()
    assert hash_of(weights="other") != hash_of()


def test_a_model_of_another_robot_is_refused(policy):
    with pytest.raises(ValueError, match="mine: its actions are of another space .*'rt2_tabletop'"):
        LocalPolicy(policy, "mine", {**policy.metadata, "action_space_hash": "0" * 64})
