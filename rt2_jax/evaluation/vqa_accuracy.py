"""VQAv2's accuracy: answers against those of ten people.

Antol et al. 2015, "VQA: Visual Question Answering", section 3: min(#people who say it / 3, 1); over
the ten sets of nine people, as https://visualqa.org/evaluation.html has it. Rules and exceptions
are those of the published script (`vqaEval.py`, for VQA v2.0).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

PEOPLE = 10
"""How many answer a question of VQAv2, OK-VQA, A-OKVQA and TextVQA."""
_AGREE = 3  # so many make an answer right

_NUMBERS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")

# Written without (one of) their apostrophes they get it back.
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's they'd
they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()
_CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTED
    for place, letter in enumerate(word)
    if letter == "'"
}


def normalised_answer(answer: str) -> str:
    """An answer as VQAv2 compares it.

    Lower case, number words as digits, without articles, punctuation and periods that no digit
    follows, with the apostrophes of contractions.
    """
    text = whole = _one_line(answer)
    for mark in _PUNCTUATION:
        apart = f"{mark} " in whole or f" {mark}" in whole or _COMMA_IN_NUMBER.search(whole)
        text = text.replace(mark, "" if apart else " ")
    words = _PERIOD.sub("", text).lower().split()
    words = [_NUMBERS.get(word, word) for word in words]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, people: Sequence[str]) -> float:
    """How right an answer is, 0 to 1: of each nine people, a third for each who says it, at most 1.

    Args:
      answer: any text.
      people: what ten people answered.

    Raises:
      ValueError: they are not ten; another number makes another measure.
    """
    if len(people) != PEOPLE:
        raise ValueError(f"vqa_accuracy: found {len(people)} people's answers, expected {PEOPLE}")
    said = [_one_line(each) for each in people]
    given = _one_line(answer)
    if len(set(said)) > 1:  # all of one opinion are compared as they are: so does the script
        said, given = list(map(normalised_answer, said)), normalised_answer(given)
    same = [each == given for each in said]
    return sum(min((sum(same) - each) / _AGREE, 1.0) for each in same) / PEOPLE


def _one_line(text: str) -> str:
    return re.sub(r"[\n\t]", " ", text).strip()
