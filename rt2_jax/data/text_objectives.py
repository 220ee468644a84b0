"""What texts alone teach: span corruption and continuing a text, as preprocessors of a task.

Both turn a step's target into a text and a target, as a function of (seed, the step's episode)
alone. The cache knows no vocabulary, so they work on words: what stands between blanks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

SENTINEL = "<extra_id_{}>"
"""T5's, numbered from 0."""


def noise_mask(
    length: int,
    rng: np.random.Generator,
    *,
    noise_density: float = 0.15,
    mean_span_length: float = 3.0,
    random_roll: bool = False,
) -> np.ndarray:
    """T5's random spans (Raffel et al. 2020, section 3.3.4): bool [length], True on noise.

    round(length * noise_density) items are noise, at least one and never all, in
    round(noise / mean_span_length) spans, at least one; the others are in as many. Kept and noise
    spans take turns, a kept one first, and every way to cut either into spans of one item or more
    is equally likely.

    Args:
      length: number of items.
      rng: decides.
      noise_density: part of the items that are noise.
      mean_span_length: of noise, in items.
      random_roll: turns the mask by a number of items, all equally likely (an option of T5's code).
        Without it noise always stands at the end, which hardly matters in T5's 512 tokens but is
        all that a text of up to 23 words would teach.

    Raises:
      ValueError: fewer than two items.
    """
    if length < 2:
        raise ValueError(f"span corruption: found {length} words, expected two or more")
    noise = min(max(round(length * noise_density), 1), length - 1)
    spans = min(max(round(noise / mean_span_length), 1), length - noise)
    lengths = np.stack([_segments(length - noise, spans, rng), _segments(noise, spans, rng)], 1)
    mask = np.repeat(np.tile([False, True], spans), lengths.ravel())
    return np.roll(mask, rng.integers(length)) if random_roll else mask


def _segments(items: int, segments: int, rng: np.random.Generator) -> np.ndarray:
    """Lengths of 1 or more, int [segments], that sum to `items`; all such are equally likely."""
    cuts = np.sort(rng.choice(items - 1, segments - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [items]]))


def corrupted(words: Sequence[str], mask: np.ndarray, sentinel: str) -> tuple[str, str]:
    """What is kept and what is noise, each with one sentinel for every span of the other.

    `Thank you <extra_id_0> me to your party <extra_id_1> week` and `<extra_id_0> for inviting
    <extra_id_1> last`.
    """
    text, target, spans = [], [], -1
    for word, noise, before in zip(words, mask, [False, *mask[:-1]], strict=True):
        if noise and not before:
            spans += 1
            text.append(sentinel.format(spans))
            target.append(sentinel.format(spans))
        (target if noise else text).append(word)
    return " ".join(text), " ".join(target)


def corrupt_spans(
    *,
    noise_density: float = 0.15,
    mean_span_length: float = 3.0,
    random_roll: bool = True,
    sentinel: str = SENTINEL,
    seed: int = 0,
) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """A preprocessor: spans of the target are to be found again (see `noise_mask`).

    Args:
      noise_density, mean_span_length, random_roll: of `noise_mask`, in words.
      sentinel: of a span; `{}` is its number. A vocabulary with pieces for it writes each as one
        token, any other spells it.
      seed: another one corrupts other spans.
    """

    def corrupt(words: list[str], rng: np.random.Generator) -> tuple[str, str]:
        mask = noise_mask(
            len(words),
            rng,
            noise_density=noise_density,
            mean_span_length=mean_span_length,
            random_roll=random_roll,
        )
        return corrupted(words, mask, sentinel)

    return _of_words(corrupt, seed)


def split_targets(*, seed: int = 0) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """A preprocessor: the target is cut in two and its second part is to be written.

    This is PaLI's split-captioning (Chen et al. 2022, section 3.2), for a prompt such as `Generate
    the alt_text in en at {text}`. The text is the number of words before the cut, and these words:
    `3: a red cube`; 0 words as likely as any other number, so that whole captions are written too.

    Args:
      seed: another one cuts elsewhere.
    """

    def split(words: list[str], rng: np.random.Generator) -> tuple[str, str]:
        cut = int(rng.integers(len(words)))
        return " ".join([f"{cut}:", *words[:cut]]), " ".join(words[cut:])

    return _of_words(split, seed)


def _of_words(
    make: Callable[[list[str], np.random.Generator], tuple[str, str]], seed: int
) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """A preprocessor from a step's target to the text and target that `make` gives of its words."""

    def of_step(target: bytes, episode: np.int64) -> tuple[bytes, bytes]:
        words = target.decode().split()
        text, rest = make(words, np.random.default_rng([seed, int(episode)]))
        return text.encode(), rest.encode()

    def preprocess(dataset: tf.data.Dataset) -> tf.data.Dataset:
        def apply(step: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            made = tf.numpy_function(
                of_step, [step["target"], step["episode"]], [tf.string, tf.string], stateful=False
            )
            for text in made:
                text.set_shape([])
            return {**step, "text": made[0], "target": made[1]}

        return dataset.map(apply)

    return preprocess
