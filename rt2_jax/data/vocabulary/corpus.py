"""The text that the vocabulary is trained on: sentences made from the lexicon by templates.

The lexicon (`lexicon/*.txt`) is one word list per topic, commonest word first; `templates.txt` says
how sentences are made of them. The same seed gives the same sentences on every machine and Python
version: the only randomness is `random.Random.random`, whose sequence Python guarantees.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from itertools import accumulate
from random import Random
from string import ascii_letters, ascii_uppercase, digits, punctuation

from rt2_jax.data.vocabulary.inflection import Inflection

NOUN_TOPICS = (
    "person",
    "body",
    "animal",
    "food",
    "thing",
    "furniture",
    "clothing",
    "vehicle",
    "place",
    "nature",
    "idea",
)
# Each gets a piece: ASCII, the letters of German, Spanish and French, and typographic marks.
CHARACTERS = (
    ascii_letters + digits + punctuation + "äöüßÄÖÜáéíóúñÁÉÍÓÚÑ¿¡àâçèêëîïôûùœÀÇÈÊ" + "’‘“”–—…°×€£"
)
_NO_PLURAL = "~"
# Zipf-Mandelbrot law (Mandelbrot 1953): the word of rank r is drawn with weight 1 / (r + offset).
_RANK_OFFSET = 20
_SLOT = re.compile(r"\{(\w+)(?:\+(\w+))?\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")
_SYLLABLE = re.compile(r"[^aeiouy]*[aeiouy]+(?:[^aeiouy]+$|[^aeiouy](?=[^aeiouy]))?")
_SECTION = re.compile(r"\[\w+ (\d+)\]")


class _WeightedChoice:
    def __init__(self, items: Sequence[str], weights: Sequence[float]):
        self._items = items
        self._cumulative = list(accumulate(weights))

    def draw(self, random: Random) -> str:
        return self._items[bisect(self._cumulative, random.random() * self._cumulative[-1])]


def lexicon_lines(name: str) -> list[str]:
    """The lines of `lexicon/<name>.txt` without comments and empty lines."""
    text = (resources.files(__package__) / "lexicon" / f"{name}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def lexicon_words(topic: str) -> list[str]:
    """The words of a topic in their order, each once; `_` in the file joins words of one name."""
    words = dict.fromkeys(" ".join(lexicon_lines(topic)).split())
    return [word.replace("_", " ") for word in words]


def _read_inflection() -> Inflection:
    nouns = (line.split() for line in lexicon_lines("irregular_noun"))
    verbs = (line.split() for line in lexicon_lines("irregular_verb"))
    return Inflection(
        plurals={singular: plural for singular, plural in nouns},
        pasts={verb: (past, participle) for verb, past, participle in verbs},
        doubling=frozenset(lexicon_words("doubling_verb")),
    )


def _read_templates() -> _WeightedChoice:
    sections: list[tuple[int, list[str]]] = []
    for line in lexicon_lines("templates"):
        if heading := _SECTION.fullmatch(line):
            sections.append((int(heading[1]), []))
        else:
            sections[-1][1].append(line)
    return _WeightedChoice(
        [template for _, templates in sections for template in templates],
        [weight / len(templates) for weight, templates in sections for _ in templates],
    )


def _read_syllables() -> list[list[str]]:
    """The first, middle and last syllables of the lexicon's words, each as often as it occurs."""
    places: list[list[str]] = [[], [], []]
    for topic in (*NOUN_TOPICS, "verb", "adjective", "adverb"):
        for word in lexicon_words(topic):
            syllables = _SYLLABLE.findall(word.removesuffix(_NO_PLURAL))
            if len(syllables) > 1:
                places[0].append(syllables[0])
                places[1] += syllables[1:-1]
                places[2].append(syllables[-1])
    return places


class _SentenceMaker:
    def __init__(self, random: Random):
        self._random = random
        self._inflection = _read_inflection()
        self._templates = _read_templates()
        self._topics: dict[str, _WeightedChoice] = {}
        self._syllables = _read_syllables()
        self._generated: dict[str, Callable[[], str]] = {
            "cap": lambda: ascii_uppercase[int(random.random() * 26)],
            "integer": lambda: str(int(random.random() * 256)),
            "character": lambda: CHARACTERS[int(random.random() * len(CHARACTERS))],
            "coined": self._coin,
            "loc": lambda: f"<loc{int(random.random() * 1024):04d}>",
        }

    def _topic(self, name: str) -> _WeightedChoice:
        if name not in self._topics:
            words: list[str] = []
            weights: list[float] = []
            for topic in NOUN_TOPICS if name == "noun" else (name,):
                words += (topic_words := lexicon_words(topic))
                weights += (1 / (rank + _RANK_OFFSET) for rank in range(len(topic_words)))
            self._topics[name] = _WeightedChoice(words, weights)
        return self._topics[name]

    def _coin(self) -> str:
        """A word of two to four syllables, each of which stands in that place in some word."""
        return "".join(
            self._syllables[place][int(self._random.random() * len(self._syllables[place]))]
            for place in [0] + [1] * int(self._random.random() * 3) + [2]
        )

    def _fill(self, slot: re.Match[str]) -> str:
        name, form = slot.groups()
        if name in self._generated:
            return self._generated[name]()
        word = self._topic(name).draw(self._random)
        if name == "verb" and form:
            return self._inflection.verb_form(word, form)
        if form and not word.endswith(_NO_PLURAL):
            return self._inflection.plural(word)
        return word.removesuffix(_NO_PLURAL)

    def make(self) -> str:
        sentence = _SLOT.sub(self._fill, self._templates.draw(self._random))
        sentence = _ARTICLE.sub(r"\1n ", sentence)
        if self._random.random() < 0.5:
            return sentence
        stop = "" if sentence.endswith((".", "?", ":")) else "."
        return sentence[0].upper() + sentence[1:] + stop


def sentences(count: int, seed: int = 0) -> Iterator[str]:
    """`count` sentences as a captioner, a questioner or a robot's user would write them."""
    maker = _SentenceMaker(Random(seed))
    for _ in range(count):
        yield maker.make()
