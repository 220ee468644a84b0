r"""Prompts with optional slots: metadata of a step that leave no trace where they are not given.

A slot stands in square brackets with the words that belong to it: `{text}?[ Speed: {speed}.] A:`.
Values come with the text, a line for each behind it: `pick the cup\nspeed: slow`. Data sets and
robots' requests say them in the same way, so training and serving fill a prompt alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

IMAGE_MARK = "<img>"
"""Where a prompt names the place of an image (PaLM-E, Driess et al. 2023, appendix B)."""
IMAGE_PLACE = "\ufffc"
"""What stands there in a filled prompt: Unicode's mark for an object, which is never in a text.

So a text that happens to say `<img>` stays a text.
"""
_SLOT = re.compile(r"\[([^\[\]{}]*)\{(\w+)\}([^\[\]{}]*)\]")
_FIELD = re.compile(r"\{(\w+)\}")


def slot_names(prompt: str) -> tuple[str, ...]:
    """The names of a prompt's slots, in order; `{text}` is none."""
    return tuple(match[2] for match in _SLOT.finditer(prompt))


def check_prompt(prompt: str) -> None:
    """Refuses a prompt that could not be filled.

    Raises:
      ValueError: a slot twice, one that is called `text`, or a field outside of brackets.
    """
    names = slot_names(prompt)
    loose = [name for name in _FIELD.findall(_SLOT.sub("", prompt)) if name != "text"]
    if loose or "text" in names or len(set(names)) < len(names):
        raise ValueError(
            f"prompt {prompt!r}: expected {{text}}, and every other field once and in brackets "
            f"with its words, as in '[ Speed: {{speed}}.]'; found the slots {list(names)}, and "
            f"{loose} outside of brackets"
        )


def with_slots(text: str, values: Mapping[str, str]) -> str:
    """The text with its slots' values behind it, as `fill_prompt` reads them; empty ones are not.

    Line breaks in text and values become blanks.
    """
    lines = [f"{name}: {_line(value)}" for name, value in values.items() if value.strip()]
    return "\n".join([_line(text), *lines])


def _line(text: str) -> str:
    return " ".join(text.split())


def fill_prompt(prompt: str, text: str) -> str:
    """The prompt for a text, which brings the values of slots; braces in it are plain text.

    `IMAGE_MARK` in the prompt, but not in the text, becomes `IMAGE_PLACE`. A prompt without slots
    takes the text as it is, with all of its lines.

    Raises:
      ValueError: a line behind the text that is no `name: value` of one of the slots.
    """
    prompt, text = prompt.replace(IMAGE_MARK, IMAGE_PLACE), text.replace(IMAGE_PLACE, " ")
    names = slot_names(prompt)
    values = {}
    if names:
        text, *lines = text.split("\n")
        for line in lines:
            name, colon, value = line.partition(":")
            if name.strip() not in names or not colon or name.strip() in values:
                raise ValueError(
                    f"found the line {line!r} behind the instruction {text!r}, expected "
                    f"'NAME: value' of one of {', '.join(names)}, each once"
                )
            values[name.strip()] = value.strip()

    def slot(match: re.Match[str]) -> str:
        value = values.get(match[2])
        return f"{match[1]}{value}{match[3]}" if value else ""

    # The text comes last but is put in first, so that what it says is not filled again.
    parts = [_SLOT.sub(slot, part) for part in prompt.split("{text}")]
    return text.join(parts)
