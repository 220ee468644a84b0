"""Captions are split and scored as COCO's own evaluation does, which needs Java for the first.

Golden words: stanford-corenlp-3.4.1's PTBTokenizer with `-preserveLines -lowerCase`, less the
punctuation of pycocoevalcap 1.2. Golden scores: `CiderScorer` of pycocoevalcap 1.2 (PyPI) on them.
"""

import numpy as np
import pytest

from rt2_jax.evaluation.caption_tokens import caption_tokens
from rt2_jax.evaluation.cider import cider_d

HARD = (
    (
        "It's a man's dog, isn't it? They don't know -- they can't.",
        "it 's a man 's dog is n't it they do n't know they ca n't",
    ),
    (
        '"A cat" (black-and-white) sits; the U.S. flag costs $5.50, i.e. 20% off...',
        "a cat -lrb- black-and-white -rrb- sits the u.s. flag costs $ 5.50 i.e. 20 % off",
    ),
    (
        "I'm gonna say we'll cannot wanna go: rock 'n' roll & R&B w/ the kids' toys",
        "i 'm gon na say we 'll can not wan na go rock 'n' roll & r&b w / the kids toys",
    ),
    (
        "A 5'10\" man at 3:30 p.m. on the 1st/2nd st. of L.A. [sic] {x} - ok!",
        "a 5 10 man at 3:30 p.m. on the 1st/2nd st. of l.a. -lsb- sic -rsb- -lcb- x -rcb- ok",
    ),
    (
        "Mr. Smith's co-worker y'all ain't it'd I've you're they'd doesn't",
        "mr. smith 's co-worker y' all ai n't it 'd i 've you 're they 'd does n't",
    ),
    (
        "The children\u2019s \u201cbig\u201d toy \u2013 caf\u00e9 \u2014 1,000 times #1 @home a_b",
        "the children 's big toy caf\u00e9 1,000 times # 1 @home a_b",
    ),
    (
        "'tis the dogs' bowl. gimme lemme gotta d'you more'n",
        "'t is the dogs bowl gim me lem me got ta d'you more 'n",
    ),
    (
        "half 1/2 of a pizza, 10x10 grid, 50's style, the '90s, o'clock, wow!!",
        "half 1/2 of a pizza 10x10 grid 50 's style the '90s o'clock wow !!",
    ),
)

PICTURES = (
    (
        "A robot arm pushes the red cube.",
        [
            "A robot arm is pushing a red cube.",
            "The arm of a robot pushes a red block to the left.",
            "A red cube, pushed by a robot's arm.",
        ],
        2.1971497320489535,
    ),
    (
        "Two cups on a wooden table",
        [
            "Two cups stand on a wooden table.",
            "A wooden table with two cups on it",
            "Cups on a table.",
        ],
        4.597359086886701,
    ),
    (
        "a dog",
        [
            "A black-and-white dog lies on the sofa.",
            "A dog that doesn't move lies on a sofa",
            "The dog is sleeping on the couch!",
        ],
        0.8484659895326513,
    ),
    (
        "a man riding a wave on top of a surfboard",
        [
            "A surfer rides a large wave in the ocean.",
            "A man on a surfboard riding a wave",
            "Man surfing: a big wave behind him.",
        ],
        1.5714040325225123,
    ),
    (
        "a red a red a red cube cube cube",
        ["A red cube and a blue star.", "There are a red cube and a blue star on the table."],
        0.7008036692709041,
    ),
    (
        "",
        ["A kitchen with a fridge (open) and a stove.", "An open fridge in the kitchen."],
        0.0,
    ),
    (
        "A kitchen with an open fridge and a stove and a table and two cups and a dog on the sofa",
        ["A kitchen with an open fridge.", "A fridge, a stove and a table in a kitchen."],
        0.3436800221445151,
    ),
)


@pytest.mark.parametrize(("caption", "words"), HARD)
def test_words_are_those_of_the_java_tokenizer(caption, words):
    assert caption_tokens(caption) == words.split()


def test_scores_are_those_of_the_published_program():
    scores = cider_d(
        [caption_tokens(caption) for caption, _, _ in PICTURES],
        [[caption_tokens(text) for text in texts] for _, texts, _ in PICTURES],
    )
    np.testing.assert_allclose(scores, [score for _, _, score in PICTURES], rtol=1e-12)


def test_a_picture_without_references_is_refused():
    with pytest.raises(ValueError, match="references of 1 of 2 pictures"):
        cider_d([["a"], ["b"]], [[["a"]], []])
