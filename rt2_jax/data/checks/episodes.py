"""Checks of whole episodes and splits: ends, lengths, copies, instructions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rt2_jax.data.checks.finding import Finding
from rt2_jax.data.checks.survey import Survey

FEW_EPISODES = 10
"""With fewer, equal lengths and instructions are no surprise."""
CUT_SHARE = 0.5
"""Of episodes with the greatest length: a time limit or a cut, since tasks end at various times."""


def check_ends(survey: Survey) -> Iterator[Finding]:
    """Episodes without a terminal step, and steps behind one."""
    for (kind, name), seen in survey.seen.items():
        if kind == "no end":
            every = seen.count == survey.episodes
            yield Finding(
                "error" if every else "warning",
                "no-end",
                f"action {name}",
                f"{seen.count} of {survey.episodes} episodes do not end with a step that terminates"
                + (": no policy trained on them can end an episode" if every else ""),
                "set terminate at the last step of finished episodes; check the data set's is_last "
                "and is_terminal",
                survey.split,
                seen.first,
            )
        elif kind == "goes on after the end":
            yield Finding(
                "error",
                "goes-on-after-end",
                f"action {name}",
                f"{seen.count} episodes go on after a step that terminates",
                "cut them there, or split them into episodes",
                survey.split,
                seen.first,
            )


def check_lengths(survey: Survey) -> Iterator[Finding]:
    """Episodes that were cut at one length."""
    if survey.info.robot is None or survey.episodes < FEW_EPISODES:
        return
    longest = max(survey.lengths)
    count = survey.lengths[longest]
    if longest > 1 and count >= CUT_SHARE * survey.episodes:
        yield Finding(
            "warning",
            "one-length",
            "",
            f"{count} of {survey.episodes} episodes have exactly {longest} steps, the most there "
            "are: cut, or ended by a time limit",
            "do not teach the end of such episodes; look at their last pictures (rt2 data inspect)",
            survey.split,
        )


def check_copies(survey: Survey) -> Iterator[Finding]:
    """Episodes that are in a split twice."""
    if survey.twins:
        place, first = survey.twins[0]
        yield Finding(
            "warning",
            "duplicate-episodes",
            "",
            f"{len(survey.twins)} of {survey.episodes} episodes equal an earlier one in all "
            f"numbers and texts, e.g. episode {first.episode} ({first.episode_id})",
            "leave them out, or they count twice",
            survey.split,
            place,
        )


def check_splits(surveys: Sequence[Survey]) -> Iterator[Finding]:
    """Episodes that two splits have in common."""
    for i, left in enumerate(surveys):
        for right in surveys[i + 1 :]:
            same = left.episode_digests.keys() & right.episode_digests.keys()
            if same:
                place = min(right.episode_digests[digest] for digest in same)
                yield Finding(
                    "error",
                    "duplicate-splits",
                    "",
                    f"{len(same)} of {len(right.episode_digests)} episodes of {right.split!r} are "
                    f"in {left.split!r}, too: an evaluation on them measures memory",
                    "hold out other episodes: read the splits as slices of one, e.g. train[:90%]",
                    right.split,
                    place,
                )


def check_texts(survey: Survey) -> Iterator[Finding]:
    """Instructions that are empty, or all the same."""
    for (kind, name), seen in survey.seen.items():
        if kind in ("empty text", "bytes as text"):
            yield Finding(
                "error" if kind == "empty text" else "warning",
                kind.replace(" ", "-"),
                name,
                f"{seen.count} of {survey.steps} steps have "
                + ("an empty one" if kind == "empty text" else "Python's way of showing bytes"),
                "leave such steps out (keep=...); caching refuses them"
                if kind == "empty text"
                else "decode the text before it is stored",
                survey.split,
                seen.first,
            )
    asks = survey.info.robot is not None
    if asks and survey.episodes >= FEW_EPISODES and len(survey.texts) == 1:
        (text,) = survey.texts
        yield Finding(
            "warning",
            "one-instruction",
            "text",
            f"all {survey.episodes} episodes have the instruction {text!r}",
            "a policy need not read it; mix with data that have others, or name objects and places",
            survey.split,
        )
