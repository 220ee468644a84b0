"""Checks of pictures: damaged, blank, frozen, or one camera twice."""

from __future__ import annotations

from collections.abc import Iterator

from rt2_jax.data.checks.finding import Finding
from rt2_jax.data.checks.survey import Survey

_STEPS = {
    "damaged picture": (
        "error",
        "cannot be decoded",
        "leave these steps out; caching refuses them",
    ),
    "missing picture": ("error", "are missing", "give every view a picture in every step"),
    "black picture": ("warning", "are all black", "leave the view out where it has no camera"),
    "one-colour picture": ("warning", "have one colour", "check the camera and how it was stored"),
    "equal views": (
        "warning",
        "show the same in two views",
        "check which column each view is read from",
    ),
}


def check_pictures(survey: Survey) -> Iterator[Finding]:
    """Pictures that show nothing, and cameras that hang."""
    for (kind, view), seen in survey.seen.items():
        name = f"view {view}"
        if kind in _STEPS:
            severity, words, advice = _STEPS[kind]
            every = seen.count == survey.steps
            yield Finding(
                "error" if every else severity,
                kind.replace(" ", "-"),
                name,
                f"{'all' if every else seen.count} of {survey.steps} pictures {words}",
                advice,
                survey.split,
                seen.first,
            )
        elif kind == "frozen view":
            blank = survey.count("black picture", view) + survey.count("one-colour picture", view)
            if blank < survey.steps:
                yield Finding(
                    "warning",
                    "frozen-view",
                    name,
                    f"in {seen.count} of {survey.episodes} episodes all pictures are the same",
                    "leave these episodes out: the camera hung, or one picture was stored",
                    survey.split,
                    seen.first,
                )
