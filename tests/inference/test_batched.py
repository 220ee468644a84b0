"""Batched answers are those of single ones, also in their last digits."""

import jax
import numpy as np
import pytest

from rt2_jax.data.cache import StepCache
from rt2_jax.data.examples import TaskExamples
from rt2_jax.inference.engine import PolicyEngine

CLOSE = 1e-4
MARGIN = 1e-3  # of the two likeliest tokens; below it rounding may choose


@pytest.mark.slow
def test_batched_answers_have_the_tokens_and_logits_of_single_ones(
    small, full_check, tmp_path_factory
):
    root = tmp_path_factory.mktemp("many")
    small.write_caches(root, held_out=334 if full_check else 16)
    description = small.describe(root)
    state, _ = small.make_state(description, root)
    engine = PolicyEngine(description, state.params, (1, 8))
    task = engine.robot_task()
    cache = StepCache(root, task.name, "validation")
    examples = TaskExamples(0, cache, description.model_inputs, engine.action_tokens(task))
    rows = [examples.example(i) for i in range(len(cache))]
    assert len(rows) >= (1000 if full_check else 48)
    together = engine.decode(rows, task)
    alone = [engine.decode([row], task) for row in rows]

    model = description.make_model().written_out()
    logits_of = jax.jit(model._compute_logits)
    mask = engine.action_tokens(task).token_mask(description.vocab_size)
    close, differ, furthest = [], [], 0.0
    for first in range(0, len(rows), 8):
        part = rows[first : first + 8]
        batch = {name: np.stack([row[name] for row in part]) for name in part[0]}
        written = together.tokens[first : first + 8, 0]
        batch["decoder_input_tokens"][:, 1 : written.shape[1]] = written[:, :-1]
        whole = np.asarray(logits_of(engine.weights.params, batch))[:, : len(mask)]
        for number, one in enumerate(whole):
            single = {name: value[number : number + 1] for name, value in batch.items()}
            found = np.asarray(logits_of(engine.weights.params, single))[0, : len(mask)]
            furthest = max(furthest, float(np.abs(found - one).max()))
            two = np.sort(np.where(mask, one, -np.inf), axis=-1)[:, -2:]
            if (two[:, 1] - two[:, 0]).min() < MARGIN:
                close.append(first + number)
            if (alone[first + number].tokens[0] != together.tokens[first + number]).any():
                differ.append(first + number)
    print(f"rows whose two likeliest tokens are within {MARGIN}: {close}")
    assert set(differ) <= set(close), f"other tokens in rows {differ}"
    assert furthest < CLOSE
    same = [i for i in range(len(rows)) if i not in differ]
    for i in same:
        np.testing.assert_allclose(alone[i].scores[0], together.scores[i], atol=CLOSE)
