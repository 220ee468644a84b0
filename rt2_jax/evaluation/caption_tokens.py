"""The words of a caption as COCO's evaluation splits them, without its Java tokenizer.

COCO's captions are compared after Stanford's PTBTokenizer (3.4.1, lower case) and without
punctuation (Chen et al. 2015, "Microsoft COCO Captions", section 4.1). These are its rules as far
as captions need them; a test compares both on captions and on hard cases.
"""

from __future__ import annotations

import re

PUNCTUATION = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))
"""Left out, as COCO's evaluation does. Brackets stay, as `-lrb-` and so on: there they are left out
in capitals only, after the text was made lower case."""

_WRITTEN = str.maketrans(
    {
        **{"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'},
        **{"\u2013": " -- ", "\u2014": " -- ", "\u00a3": "#", "\u20ac": "$"},
    }
)
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_TITLES = "mr|mrs|ms|dr|st|jr|sr|ave|blvd|inc|co|corp|etc|vs|ft|prof|gen|gov|rep|sen|lt|col|capt"
_ENDING = r"n't|'(?:s|m|d|t|re|ve|ll)"
_TOKEN = re.compile(
    rf"""
    (?:https?://|www\.)[^\s,;"()]+ | [\w.]+@[\w.]+\w    # addresses
    | (?:[^\W\d_]\.)+[^\W\d_]\.? (?!\w)                 # u.s., p.m., a.m
    | (?:{_TITLES})\.(?!\w)
    | no\.(?=\s*\d)
    | '(?:\d0s|em\b|n'?(?!\w))                          # '90s
    | \d+(?:[.,:/]\d+)+(?:[-/]\w+)*                     # 1,000 5.50 3:30 1/2-mile
    | [@\#][^\W\d_]\w*                                  # a name, a tag
    | (?:{_ENDING})(?!\w)
    | (?:o|d|l|ma)'\w+ | y'(?=all\b)                    # o'clock, ma'am
    | \w+?(?={_ENDING}(?!\w)|'d've)
    | \w+(?:[-&/_.](?=\w)\w+)*                          # black-and-white, and/or
    | \.\.\.+ | --+ | [!?]{{2,}} | \S
    """,
    re.VERBOSE,
)
_TWO_WORDS = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "gimme": ("gim", "me"),
    "lemme": ("lem", "me"),
}


def caption_tokens(caption: str) -> list[str]:
    """The words of a caption, in lower case and without punctuation."""
    text = re.sub(r"'t(?=(?:is|was)\b)", " 't ", caption.translate(_WRITTEN).lower())
    tokens: list[str] = []
    for token in _TOKEN.findall(text):
        if token in _BRACKETS:
            tokens.append(_BRACKETS[token])
        elif token != '"' and token not in PUNCTUATION and token.strip("-."):
            tokens += _TWO_WORDS.get(token, (token,))
    return tokens
