"""English inflection by rule, with the irregular words of the lexicon."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_SIBILANT = re.compile(r"(s|x|z|ch|sh)$")
_CONSONANT_Y = re.compile(r"[^aeiou]y$")
_SHORT_VOWEL_VERB = re.compile(r"([^aeiou]*|[^aeiou]*qu)[aeiou][bdgklmnprt]")


def _with_s(word: str) -> str:
    if _SIBILANT.search(word):
        return word + "es"
    return word[:-1] + "ies" if _CONSONANT_Y.search(word) else word + "s"


@dataclass(frozen=True)
class Inflection:
    """Inflects English words.

    Attributes:
      plurals: singular -> plural, of the irregular nouns.
      pasts: verb -> (past, past participle), of the irregular verbs.
      doubling: verbs of several syllables that double their last letter, as "occur" does.
    """

    plurals: Mapping[str, str]
    pasts: Mapping[str, tuple[str, str]]
    doubling: frozenset[str]

    def plural(self, noun: str) -> str:
        """The plural of a noun; of several words the last one is inflected."""
        *before, last = noun.split(" ")
        return " ".join([*before, self.plurals.get(last) or _with_s(last)])

    def verb_form(self, verb: str, form: str) -> str:
        """The form "s", "ing", "ed" (past) or "en" (past participle) of a verb."""
        if form == "s":
            return verb + "es" if verb in ("go", "do") else _with_s(verb)
        if form == "ing":
            return self._with_ing(verb)
        past, participle = self.pasts.get(verb) or (self._with_ed(verb),) * 2
        return {"ed": past, "en": participle}[form]

    def _stem(self, verb: str) -> str:
        doubles = verb in self.doubling or _SHORT_VOWEL_VERB.fullmatch(verb)
        return verb + verb[-1] if doubles else verb

    def _with_ing(self, verb: str) -> str:
        if verb.endswith("ie"):
            return verb[:-2] + "ying"
        if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
            return verb[:-1] + "ing"
        return self._stem(verb) + "ing"

    def _with_ed(self, verb: str) -> str:
        if verb.endswith("e"):
            return verb + "d"
        return verb[:-1] + "ied" if _CONSONANT_Y.search(verb) else self._stem(verb) + "ed"
