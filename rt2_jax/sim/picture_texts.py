"""What can be said and asked about a picture: captions, questions and their answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from rt2_jax.sim.world import World

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
"""Counts are words: an answer in digits would be an action token."""
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")
_VOWEL_SOUNDS = "aeiouAEFHILMNORSX8"  # of words, and of symbols as they are said
_MOST_NAMED = 3  # things in a caption
_APART = 0.12  # of a side: things must be so far apart to be left or right of each other


@dataclasses.dataclass(frozen=True)
class Thing:
    """What is to be seen of an object.

    Attributes:
      name: `red cube`, or `A cube` with a symbol.
      shape: its shape.
      colour: its colour; None with a symbol.
      box: left, top, width and height in pixels.
    """

    name: str
    shape: str
    colour: str | None
    box: tuple[float, float, float, float]

    def mirrored(self, width: int) -> Thing:
        """The same with left and right swapped."""
        left, top, wide, high = self.box
        return dataclasses.replace(self, box=(round(width - left - wide, 2), top, wide, high))

    def middle(self, size: int) -> tuple[float, float]:
        """(y, x) as fractions of the picture's sides."""
        left, top, wide, high = self.box
        return (top + high / 2) / size, (left + wide / 2) / size


def place_name(thing: Thing, size: int) -> str:
    """Which ninth of the picture a thing is in: `top left`, `top`, ..., `centre`."""
    y, x = (min(int(3 * value), 2) for value in thing.middle(size))
    return f"{_ROWS[y]} {_COLUMNS[x]}".strip() or "centre"


def describe(things: Sequence[Thing], size: int, random: np.random.Generator) -> str:
    """A caption that names up to three things and where they are."""
    if not things:
        return "an empty table"
    chosen = [things[i] for i in random.permutation(len(things))[:_MOST_NAMED]]
    phrases = [f"{_a(thing.name)} {_at(place_name(thing, size))}" for thing in chosen]
    return _listed(phrases)


def question_and_answer(
    things: Sequence[Thing], size: int, world: World, random: np.random.Generator
) -> tuple[str, str]:
    """One question about a picture that has exactly one answer."""
    kinds = [_number, _presence]
    if any(_once(things, "shape")):
        kinds.append(_colour)
    if things:
        kinds += [_where, _what]
    if len(things) > 1:
        kinds.append(_side)
    return kinds[int(random.integers(len(kinds)))](things, size, world, random)


def _number(
    things: Sequence[Thing], size: int, world: World, random: np.random.Generator
) -> tuple[str, str]:
    return "how many objects are there?", NUMBERS[len(things)]


def _presence(
    things: Sequence[Thing], size: int, world: World, random: np.random.Generator
) -> tuple[str, str]:
    names = {thing.name for thing in things}
    others = [f"{c} {s}" for c in world.colours for s in world.shapes if f"{c} {s}" not in names]
    if things and (not others or random.random() < 0.5):
        return f"is there {_a(_pick(things, random).name)}?", "yes"
    # Half of what is asked for in vain has the colour or the shape of something that is there.
    alike = {word for thing in things for word in (thing.colour, thing.shape)}
    near = [name for name in others if set(name.split()) & alike]
    pool = near if near and random.random() < 0.5 else others
    return f"is there {_a(pool[int(random.integers(len(pool)))])}?", "no"


def _colour(
    things: Sequence[Thing], size: int, world: World, random: np.random.Generator
) -> tuple[str, str]:
    thing = _pick([each for each in _once(things, "shape") if each.colour], random)
    return f"what colour is the {thing.shape}?", str(thing.colour)


def _where(
    things: Sequence[Thing], size: int, world: World, random: np.random.Generator
) -> tuple[str, str]:
    thing = _pick(things, random)
    return f"where is the {thing.name}?", place_name(thing, size)


def _what(
    things: Sequence[Thing], size: int, world: World, random: np.random.Generator
) -> tuple[str, str]:
    place = place_name(_pick(things, random), size)
    there = [thing.name for thing in things if place_name(thing, size) == place]
    if len(there) > 1:
        return f"how many objects are {_at(place)}?", NUMBERS[len(there)]
    return f"what is {_at(place)}?", there[0]


def _side(
    things: Sequence[Thing], size: int, world: World, random: np.random.Generator
) -> tuple[str, str]:
    first, second = (things[i] for i in random.permutation(len(things))[:2])
    (y1, x1), (y2, x2) = first.middle(size), second.middle(size)
    if abs(x1 - x2) >= max(_APART, abs(y1 - y2)):
        options, answer = "left or right of", "left" if x1 < x2 else "right"
    elif abs(y1 - y2) >= _APART:
        options, answer = "above or below", "above" if y1 < y2 else "below"
    else:
        return _where(things, size, world, random)
    return f"is the {first.name} {options} the {second.name}?", answer


def _once(things: Sequence[Thing], name: str) -> list[Thing]:
    """Those whose attribute no other thing has; without a colour nothing can be asked."""
    values = [getattr(thing, name) for thing in things]
    return [thing for thing in things if values.count(getattr(thing, name)) == 1 and thing.colour]


def _pick(things: Sequence[Thing], random: np.random.Generator) -> Thing:
    return things[int(random.integers(len(things)))]


def _a(name: str) -> str:
    return f"{'an' if name[0] in _VOWEL_SOUNDS else 'a'} {name}"


def _at(place: str) -> str:
    return f"in the {place}" if place == "centre" else f"at the {place}"


def _listed(phrases: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))
