"""Decoding by a step whose logits are known: what is drawn, and where a plan ends."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from rt2_jax.models.decoding import Draw, decode, repeat_rows

EOS = 1
LOGITS = np.log(np.array([0.0001, 0.0001, 0.5, 0.3, 0.1998], np.float32))


@dataclasses.dataclass
class Counter:
    """A cache that knows how many tokens were written."""

    written: jax.Array
    room: int = 100


jax.tree_util.register_dataclass(Counter, ["written"], ["room"])


@functools.partial(jax.jit, static_argnums=(1, 2))
def written(script, length, rows=1, **options):
    """What is decoded where the model's logits at place `i` are `script[i]`."""
    script = jnp.asarray(script, jnp.float32)

    def step(tokens, cache):
        logits = jnp.broadcast_to(script[cache.written], (rows, script.shape[1]))
        return logits[:, None], Counter(cache.written + 1)

    first = jnp.broadcast_to(script[0], (rows, script.shape[1]))
    return decode(step, first, Counter(jnp.int32(1)), length, EOS, **options)


def draw(count, temperature=1.0, top_k=0, seed=0):
    return Draw(jnp.uint32(seed), jnp.float32(temperature), jnp.int32(top_k), count)


def shares(count=4000, **options):
    tokens = written(LOGITS[None], 1, count, draw=draw(count, **options)).tokens[:, 0]
    return np.bincount(np.asarray(tokens), minlength=5) / count


def test_tokens_are_drawn_as_likely_as_the_model_believes():
    np.testing.assert_allclose(shares(), np.exp(LOGITS), atol=0.03)
    hot = np.exp(LOGITS / 2) / np.exp(LOGITS / 2).sum()
    np.testing.assert_allclose(shares(temperature=2.0), hot, atol=0.03)
    np.testing.assert_allclose(shares(top_k=2), [0, 0, 0.625, 0.375, 0], atol=0.03)
    assert shares(temperature=0.0)[2] == 1 == shares(top_k=1)[2]


def test_log_probabilities_are_the_models_own_among_what_is_allowed():
    mask = np.array([[False, False, False, True, True]] * 2)
    found = written(np.tile(LOGITS, (2, 1)), 2, 50, token_mask=mask, draw=draw(50, 3.0))
    assert set(found.tokens.ravel().tolist()) == {3, 4}
    own = np.exp(LOGITS)[found.tokens]
    np.testing.assert_allclose(np.exp(found.free_log_probs), own, rtol=1e-4)
    np.testing.assert_allclose(np.exp(found.log_probs), own / (0.3 + 0.1998), rtol=1e-4)


def test_answers_depend_on_seed_and_number_alone():
    script = np.tile(LOGITS, (6, 1))
    four = written(script, 6, 8, draw=draw(4)).tokens.reshape(2, 4, 6)
    np.testing.assert_array_equal(four[0], four[1])  # of equal rows
    two = written(script, 6, 2, draw=draw(2)).tokens
    np.testing.assert_array_equal(two, four[0, :2])
    assert len(np.unique(four[0], axis=0)) > 1
    other = written(script, 6, 2, draw=draw(2, seed=1)).tokens
    assert (other != two).any()
    assert repeat_rows(jnp.arange(2), 2).tolist() == [0, 0, 1, 1]


ACTION, COLON, WORD, BIN = 5, 6, 7, 8
PLAN, PLACES = 6, 8


def planned(words):
    """Tokens where the model would write `words`, and behind the plan two bins."""
    script = np.zeros((PLACES, 10), np.float32)
    for place, word in enumerate([*words, *[WORD] * PLACES][:PLACES]):
        script[place, word] = 9.0
    return np.asarray(write_plan(script))[0].tolist()


@jax.jit
def write_plan(script):
    mask = np.ones((PLACES, 10), bool)
    mask[PLAN:] = np.arange(10) == BIN
    options = {"token_mask": mask, "restart": PLAN, "stop": jnp.array([ACTION, COLON])}
    return written(script, PLACES, **options).tokens


def test_a_plan_ends_with_its_last_words_also_where_the_model_would_go_on():
    assert planned([WORD, ACTION, COLON, WORD, WORD]) == [7, 5, 6, EOS, 0, 0, BIN, BIN]


def test_a_plan_that_the_model_ends_itself_is_what_it_was():
    assert planned([WORD, ACTION, COLON, EOS, WORD]) == [7, 5, 6, EOS, 0, 0, BIN, BIN]
    assert planned([EOS]) == [EOS, 0, 0, 0, 0, 0, BIN, BIN]
    assert planned([ACTION, COLON]) == [5, 6, EOS, 0, 0, 0, BIN, BIN]


def test_a_plan_without_end_is_cut_and_the_action_follows():
    assert planned([WORD] * 8) == [WORD] * PLAN + [BIN, BIN]
    assert planned([WORD] * 4 + [ACTION, COLON]) == [7, 7, 7, 7, 5, 6, BIN, BIN]
    assert planned([WORD, COLON, ACTION]) == [7, 6, 5, 7, 7, 7, BIN, BIN]
