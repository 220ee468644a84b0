"""CIDEr-D: how near captions come to what several people wrote about the same pictures.

Vedantam et al. 2015, "CIDEr: Consensus-based Image Description Evaluation", section 3 and, for
CIDEr-D, section 4: counts are clipped to those of the reference, and captions of another length
than it are penalised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

LONGEST = 4
"""n-grams of 1 to so many words, all of one weight."""
SIGMA = 6.0
"""Of the penalty of lengths, words."""
SCALE = 10.0

_Ngrams = Counter[tuple[str, ...]]


def cider_d(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> np.ndarray:
    """Scores float64 [N] of captions, 0 to 10; their mean is what is reported.

    How much an n-gram counts depends on how many of these pictures it is written about, so scores
    of other sets of pictures are not comparable, and with one picture all are 0.

    Args:
      candidates: the words of one caption of each picture, see `caption_tokens`.
      references: the captions of each picture that people wrote, one or more.

    Raises:
      ValueError: another number of both, or a picture without references.
    """
    if len(candidates) != len(references) or not all(references):
        raise ValueError(
            f"cider_d: found {len(candidates)} candidates and references of "
            f"{sum(map(bool, references))} of {len(references)} pictures, expected one or more of "
            "each"
        )
    counts = [[_ngrams(words) for words in of_picture] for of_picture in references]
    pictures = Counter(gram for each in counts for gram in set().union(*each))
    rarest = np.log(len(references)) if references else 0.0

    def weighted(grams: _Ngrams) -> list[dict[tuple[str, ...], float]]:
        vectors: list[dict[tuple[str, ...], float]] = [{} for _ in range(LONGEST)]
        for gram, count in grams.items():
            weight = rarest - float(np.log(max(1, pictures[gram])))
            vectors[len(gram) - 1][gram] = count * weight
        return vectors

    scores = np.zeros(len(candidates))
    for number, (candidate, of_picture) in enumerate(zip(candidates, references, strict=True)):
        vectors = weighted(_ngrams(candidate))
        for words, grams in zip(of_picture, counts[number], strict=True):
            near = sum(map(_clipped_cosine, vectors, weighted(grams))) / LONGEST
            apart = len(candidate) - len(words)
            scores[number] += SCALE * near * np.exp(-(apart**2) / (2 * SIGMA**2))
        scores[number] /= len(of_picture)
    return scores


def _ngrams(words: Sequence[str]) -> _Ngrams:
    return Counter(
        tuple(words[first : first + length])
        for length in range(1, LONGEST + 1)
        for first in range(len(words) - length + 1)
    )


def _clipped_cosine(
    candidate: dict[tuple[str, ...], float], reference: dict[tuple[str, ...], float]
) -> float:
    norms = [sum(weight**2 for weight in vector.values()) for vector in (candidate, reference)]
    if not all(norms):
        return 0.0
    both = candidate.keys() & reference.keys()
    # Sorted: a sum of floats depends on the order, and that of a set on the process.
    product = sum(min(candidate[gram], reference[gram]) * reference[gram] for gram in sorted(both))
    return product / float(np.sqrt(norms[0] * norms[1]))
