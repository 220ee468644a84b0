"""Decoding over the cached decode step: the likeliest tokens, or drawn ones, in one loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from rt2_jax.actions.sampling import MOST_TOP_K


class Cache(Protocol):
    """What a decode step takes and gives back, longer: `DecoderCache`, `DecoderOnlyCache`."""

    @property
    def room(self) -> int:
        """How many tokens can be written with it."""


CacheT = TypeVar("CacheT", bound=Cache)


class DecodeStep(Protocol[CacheT]):
    """The logits float32 [B, 1, vocab] after one more token of each row, and the longer cache."""

    def __call__(self, tokens: jax.Array, cache: CacheT, /) -> tuple[jax.Array, CacheT]: ...


Array = Any
"""Of JAX in a program, of numpy outside it."""


class Decoded(NamedTuple):
    """What a model wrote.

    Attributes:
      tokens: int32 [rows, length]; 0 after the end.
      log_probs: float32 [rows, length], of each token among those that its place allows; 0 after
        the end.
      free_log_probs: the same among all tokens: low where the mask alone made it this one.
    """

    tokens: Array
    log_probs: Array
    free_log_probs: Array


@struct.dataclass
class Draw:
    """Several answers to each row, drawn instead of taken for the likeliest.

    Answer number `i` depends on the row, the seed and `i` alone, not on the other rows nor on how
    many answers are drawn (`rt2_jax.actions.sampling.Sampling`). Log-probabilities are the model's
    own, without temperature and top-k.

    Attributes:
      seed: uint32 [].
      temperature: float32 [], from 0, which takes the likeliest; 1 draws as the model believes.
      top_k: int32 [], draws among the likeliest so many; 0 among all; `MOST_TOP_K` at most.
      count: answers to each row.
    """

    seed: Array
    temperature: Array
    top_k: Array
    count: int = struct.field(pytree_node=False)


def decode(
    decode_step: DecodeStep[CacheT],
    logits: jax.Array,
    cache: CacheT,
    length: int,
    eos_id: int,
    token_mask: jax.Array | None = None,
    restart: int | jax.Array = 0,
    stop: jax.Array | None = None,
    draw: Draw | None = None,
) -> Decoded:
    """An allowed token, `length` times; after `eos_id` comes padding (0).

    Args:
      decode_step: as the model's `decode_step`, with the parameters bound.
      logits: float32 [rows, vocab] of the first token to be written.
      cache: with room for `length` tokens; in an encoder-decoder the first input is one of them.
      length: tokens to write.
      eos_id: the token that ends a row.
      token_mask: bool [length, vocab]; which tokens may stand at each place. None allows all.
      restart: from this place on rows that have ended are written on: the padding behind a plan
        ends there.
      stop: int32 [S]; before `restart`, a row that has just written these tokens ends: `eos_id`
        follows, whatever the model would write. None for no such text.
      draw: None takes the likeliest token. Otherwise `draw.count` rows that follow each other are
        answers to the same question, as `repeat_rows` makes them.

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
    rows, token_mask = len(logits), jnp.asarray(token_mask)
    prefer = perturb(draw, *logits.shape)

    def choose(
        logits: jax.Array, place: jax.Array, allowed: jax.Array, ended: jax.Array, done: jax.Array
    ) -> tuple[jax.Array, Decoded]:
        """The next token of each row; `ended` rows write their end, `done` ones padding."""
        log_probs = jax.nn.log_softmax(jnp.where(allowed, logits, -jnp.inf))
        token = jnp.where(ended, eos_id, jnp.argmax(prefer(log_probs, place), axis=-1))
        token = jnp.where(done, 0, token).astype(jnp.int32)
        here = token[:, None]
        chosen = jnp.take_along_axis(log_probs, here, axis=-1)[:, 0]
        free = jnp.take_along_axis(logits, here, axis=-1)[:, 0] - jax.nn.logsumexp(logits, axis=-1)
        scores = (jnp.where(done, 0.0, score) for score in (chosen, free))
        return done | (token == eos_id), Decoded(token, *scores)

    def step(carry: tuple, place: jax.Array) -> tuple[tuple, Decoded]:
        last, done, cache = carry
        logits, cache = decode_step(last[:, -1:], cache)
        ended = jnp.zeros(rows, bool)
        if stop is not None:
            ended = jnp.all(last == stop, axis=1) & (place < restart)
        done &= place != restart
        done, written = choose(logits[:, 0], place, token_mask[place], ended, done)
        last = jnp.concatenate([last[:, 1:], written.tokens[:, None]], axis=1)
        return (last, done, cache), written

    nothing = jnp.zeros(rows, bool)
    done, first = choose(logits, jnp.int32(0), token_mask[0], nothing, nothing)
    width = 1 if stop is None else max(len(stop), 1)
    last = jnp.full((rows, width), -1, jnp.int32).at[:, -1].set(first.tokens)
    _, others = jax.lax.scan(step, (last, done, cache), jnp.arange(1, length))
    joined = (jnp.concatenate([a[None], b]).T for a, b in zip(first, others, strict=True))
    return Decoded(*joined)


def repeat_rows(x: jax.Array, count: int, axis: int = 0) -> jax.Array:
    """Every row `count` times, those of one row behind each other."""
    return x if count == 1 else jnp.repeat(x, count, axis=axis)


def perturb(draw: Draw | None, rows: int, vocab: int) -> Callable[..., jax.Array]:
    """A function of log-probabilities [rows, vocab] and a place, whose largest is to be taken.

    Without `draw` it is the largest log-probability itself. Else it is the largest of `log_probs +
    temperature * Gumbel`, which is drawn at that temperature (Maddison et al. 2014, section 2).
    """
    if draw is None:
        return lambda log_probs, place: log_probs
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.key(draw.seed), jnp.arange(draw.count)
    )
    most = min(MOST_TOP_K, vocab)

    def kept(log_probs: jax.Array) -> jax.Array:
        least = jax.lax.top_k(log_probs, most)[0][:, jnp.minimum(draw.top_k, most) - 1]
        return jnp.where(log_probs >= least[:, None], log_probs, -jnp.inf)

    def noisy(log_probs: jax.Array, place: jax.Array) -> jax.Array:
        here = jax.vmap(jax.random.fold_in, (0, None))(keys, place)
        gumbel = jax.vmap(lambda key: jax.random.gumbel(key, (vocab,)))(here)
        gumbel = jnp.tile(gumbel, (rows // draw.count, 1))
        log_probs = jax.lax.cond(draw.top_k > 0, kept, lambda x: x, log_probs)
        return log_probs + draw.temperature * gumbel

    return noisy
