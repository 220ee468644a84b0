"""Prefixes in one pass, then steps over the explicit cache, give what the full pass gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.models.decoding import decode

CLOSE = {"rtol": 2e-4, "atol": 2e-5}
PREFIX = 5
EOS = 1


def prefill(apply, config, params, rows):
    return apply(config, "prefill", params, *(part[:, :PREFIX] for part in rows))


@pytest.mark.parametrize("chunks", [(1, 1, 1), (2, 1)])
@pytest.mark.parametrize("name", ["palm", "gemma", "llama", "full"])
def test_cached_decoding_equals_the_full_pass(apply, configs, make_params, rows, name, chunks):
    config, (tokens, _, mask) = configs[name], rows
    params, begin = make_params(config), PREFIX
    full = apply(config, "__call__", params, *rows)
    logits, cache = prefill(apply, config, params, rows)
    last = jnp.array([4, 2, 4])
    np.testing.assert_allclose(logits, full[jnp.arange(3), last], **CLOSE)
    cache = cache.extended(3)
    assert cache.layers.keys.shape == (config.num_layers, 3, 8, config.num_kv_heads, 8)
    for chunk in chunks:
        logits, cache = apply(
            config, "decode_step", params, tokens[:, begin : begin + chunk], cache
        )
        np.testing.assert_allclose(logits, full[:, begin : begin + chunk], **CLOSE)
        begin += chunk
    assert cache.positions.tolist() == np.sum(mask, axis=1).tolist()
    assert cache.used.tolist() == [8, 8, 8]


@pytest.mark.parametrize("name", ["palm", "llama"])
def test_rows_of_different_prompt_length_give_what_they_give_alone(
    apply, configs, make_params, rows, name
):
    config = configs[name]
    params, mask = make_params(config), np.asarray(rows[2])
    together = apply(config, "__call__", params, *rows)
    for row in (1, 2):  # those with padding
        alone = [part[row : row + 1, mask[row]] for part in rows[:2]]
        expected = apply(config, "__call__", params, *alone)
        np.testing.assert_allclose(together[row, mask[row]], expected[0], **CLOSE)


def test_rows_of_a_cache_may_have_taken_different_numbers_of_places(
    apply, configs, make_params, rows
):
    config, (tokens, _, _) = configs["gemma"], rows
    params = make_params(config)
    full = apply(config, "__call__", params, *rows)
    _, cache = prefill(apply, config, params, rows)
    cache = cache.extended(3)
    _, longer = apply(config, "decode_step", params, tokens[:, 5:6], cache)
    # The last row goes back by one token: what a speculative decoder does with a wrong guess.
    back = longer.replace(
        mask=longer.mask.at[2, 5].set(False),
        used=longer.used.at[2].add(-1),
        positions=longer.positions.at[2].add(-1),
    )
    fed = jnp.stack([tokens[0, 6], tokens[1, 6], tokens[2, 5]])[:, None]
    logits, _ = apply(config, "decode_step", params, fed, back)
    np.testing.assert_allclose(logits[:, 0], full[jnp.arange(3), jnp.array([6, 6, 5])], **CLOSE)


def test_greedy_decoding_of_uneven_prompts_is_step_by_step_argmax(
    apply, configs, make_params, rows
):
    config = configs["llama"]
    params = make_params(config)
    logits, cache = prefill(apply, config, params, rows)

    def step(tokens, cache):
        return apply(config, "decode_step", params, tokens, cache)

    allowed = np.ones((3, config.vocab_size), bool)
    allowed[:, [0, EOS]] = False
    found, scores, _ = jax.jit(lambda *x: decode(step, *x[:2], 3, EOS, x[2]))(
        logits, cache.extended(3), allowed
    )
    tokens = rows[0].at[:, PREFIX:].set(found)
    full = apply(config, "__call__", params, tokens, *rows[1:])
    before = jnp.array([[4, 5, 6], [2, 5, 6], [4, 5, 6]])
    chosen = jax.nn.log_softmax(jnp.where(allowed, full[jnp.arange(3)[:, None], before], -jnp.inf))
    np.testing.assert_array_equal(jnp.argmax(chosen, axis=-1), found)
    np.testing.assert_allclose(scores, chosen.max(axis=-1), rtol=1e-4)


def test_a_cache_without_room_is_refused(apply, configs, make_params, rows):
    logits, cache = prefill(apply, configs["palm"], make_params(configs["palm"]), rows)
    with pytest.raises(ValueError, match="found room for 2 tokens, expected 3 or more"):
        decode(lambda *_: pytest.fail("a step ran"), logits, cache.extended(2), 3, EOS)
