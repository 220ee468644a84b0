"""The numbers of a log line: weighted, per source, without the steps that were skipped."""

import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.models.losses import ExampleSums
from rt2_jax.training.metrics import SourceRules, StepMetrics, summarize


def measured(loss, source_id, cross_entropy, correct, weight, skipped=False):
    zeros = jnp.zeros(len(source_id))
    sums = ExampleSums(
        *(jnp.asarray(x, jnp.float32) for x in (cross_entropy, zeros, correct, weight, weight))
    )
    batch = {
        "source_id": jnp.asarray(source_id),
        "decoder_target_tokens": jnp.asarray([[7, 7, 0, 0]] * len(source_id)),
    }
    sources = SourceRules(("a", "b", "c")).sums(sums, batch)
    return StepMetrics(
        loss=np.float32(loss),
        gradient_norm=np.float32(2 * loss),
        learning_rate=np.float32(0.1),
        skipped=np.bool_(skipped),
        sources=sources,
    )


def test_sources_are_weighted_over_all_steps_and_absent_ones_have_no_numbers():
    steps = [
        measured(1.0, [0, 2, 0], [1, 8, 3], [1, 0, 0], [2, 4, 2]),
        measured(3.0, [2, 2, 2], [0, 0, 4], [0, 4, 0], [0, 4, 4]),
        measured(np.nan, [0, 1, 2], [np.nan, 1, 1], [1, 1, 1], [1, 1, 1], skipped=True),
    ]
    assert summarize(steps, ["robot", "unused", "web"]) == pytest.approx(
        {
            "skipped_steps": 1,
            "loss": 2,
            "gradient_norm": 4,
            "learning_rate": 0.1,
            "accuracy": 5 / 16,
            "useful_tokens": 0.5,
            "target_tokens": 0.5,
            "robot/loss": 1,
            "robot/accuracy": 0.25,
            "robot/examples": 2,
            "robot/useful_tokens": 0.5,
            "web/loss": 1,
            "web/accuracy": 4 / 12,
            "web/examples": 4,
            "web/useful_tokens": 0.5,
        }
    )


def example_sums(rows):
    return ExampleSums(*[jnp.ones(rows, jnp.float32)] * 5)


def test_positions_count_pictures_once_and_neither_padding_nor_a_slot_without_a_picture():
    batch = {
        "source_id": jnp.array([0, 1, 1]),
        "image_mask": jnp.array([[True, True], [True, False], [False, False]]),
        "encoder_input_tokens": jnp.array([[5, 1, 0], [5, 5, 1], [1, 0, 0]]),
        "decoder_target_tokens": jnp.array([[7, 7, 7, 1], [7, 1, 0, 0], [1, 0, 0, 0]]),
    }
    sums = SourceRules(("robot", "web"), tokens_per_image=10).sums(example_sums(3), batch)
    assert sums.images.tolist() == [2, 1]
    assert sums.target_tokens.tolist() == [4, 3] and sums.target_positions.tolist() == [4, 8]
    assert sums.useful_tokens.tolist() == [20 + 2 + 4, 10 + 3 + 2 + 1 + 1]
    assert sums.computed_tokens.tolist() == [20 + 3 + 4, 2 * (20 + 3 + 4)]


def test_in_a_decoder_only_row_a_pictures_positions_are_part_of_the_row():
    batch = {  # padding, one slot of two placeholders, prompt, answer
        "source_id": jnp.array([0, 1]),
        "image_mask": jnp.array([[True], [False]]),
        "decoder_causal_attention": jnp.ones((2, 6), jnp.int32),
        "decoder_target_tokens": jnp.array([[0, -1, -1, 5, 7, 1], [0, -1, -1, 5, 1, 0]]),
    }
    sums = SourceRules(("robot", "web"), tokens_per_image=2).sums(example_sums(2), batch)
    assert sums.useful_tokens.tolist() == [5, 2]
    assert sums.computed_tokens.tolist() == [6, 6]


def test_without_a_step_that_counts_there_is_only_their_number():
    step = measured(np.inf, [0], [1], [1], [1], skipped=True)
    assert summarize([step, step], ["robot", "web", "x"]) == {"skipped_steps": 2}
