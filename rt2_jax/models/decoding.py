"""Greedy decoding over the cached decode step: the reference for every faster decoder."""

from __future__ import annotations

from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp


class Cache(Protocol):
    """What a decode step takes and gives back, longer: `DecoderCache`, `DecoderOnlyCache`."""

    @property
    def room(self) -> int:
        """How many tokens can be written with it."""


CacheT = TypeVar("CacheT", bound=Cache)


class DecodeStep(Protocol[CacheT]):
    """The logits float32 [B, 1, vocab] after one more token of each row, and the longer cache."""

    def __call__(self, tokens: jax.Array, cache: CacheT, /) -> tuple[jax.Array, CacheT]: ...


def greedy_decode(
    decode_step: DecodeStep[CacheT],
    logits: jax.Array,
    cache: CacheT,
    length: int,
    eos_id: int,
    token_mask: jax.Array | None = None,
    restart: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """The likeliest allowed token, `length` times; after `eos_id` comes padding (0).

    Args:
      decode_step: as the model's `decode_step`, with the parameters bound.
      logits: float32 [B, vocab] of the first token to be written.
      cache: with room for `length` tokens; in an encoder-decoder the first input is one of them.
      length: tokens to write.
      eos_id: the token that ends a row.
      token_mask: bool [length, vocab]; which tokens may stand at each place. None allows all.
      restart: from this place on rows that have ended are written on: the padding behind a plan
        ends there.

    Returns:
      int32 [B, length], and float32 [B], the sum of the log-probabilities of each row's tokens,
      without the padding, among the allowed ones.

    Raises:
      ValueError: the mask has another shape, or the cache is too short.
    """
    if cache.room < length:
        raise ValueError(
            f"cache: found room for {cache.room} tokens, expected {length} or more; make room with "
            f"cache.extended({length})"
        )
    expected = (length, logits.shape[-1])
    if token_mask is None:
        token_mask = jnp.ones((length, 1), bool)
    elif token_mask.shape != expected:
        raise ValueError(
            f"token_mask: found shape {token_mask.shape}, expected {expected}: one row for each "
            "place, one column for each token"
        )

    def choose(logits: jax.Array, allowed: jax.Array, done: jax.Array) -> tuple[jax.Array, ...]:
        log_probs = jax.nn.log_softmax(jnp.where(allowed, logits, -jnp.inf))
        token = jnp.where(done, 0, jnp.argmax(log_probs, axis=-1)).astype(jnp.int32)
        return token, jnp.where(done, 0.0, jnp.max(log_probs, axis=-1)), done | (token == eos_id)

    def step(carry: tuple, place: tuple) -> tuple[tuple, tuple[jax.Array, jax.Array]]:
        token, done, cache = carry
        allowed, again = place
        logits, cache = decode_step(token[:, None], cache)
        token, score, done = choose(logits[:, 0], allowed, done & ~again)
        return (token, done, cache), (token, score)

    first, score, done = choose(logits, token_mask[0], jnp.zeros(len(logits), bool))
    places = token_mask[1:], jnp.arange(1, length) == restart
    _, (tokens, scores) = jax.lax.scan(step, (first, done, cache), places)
    tokens = jnp.concatenate([first[None], tokens]).T
    return tokens, score + jnp.sum(scores, axis=0)
