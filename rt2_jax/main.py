"""`python -m rt2_jax.main --run_mode=MODE`: T5X's entry point, for `rt2`'s verbs of the same."""

import sys
from collections.abc import Mapping, Sequence

from rt2_jax.cli.main import main

VERBS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "eval": ("eval", "offline"),
    "infer": ("eval", "infer"),
    "export": ("convert",),
}
"""Run mode -> verb."""


def arguments(argv: Sequence[str]) -> list[str]:
    """The arguments of `rt2` for those of `t5x/main.py`.

    Raises:
      SystemExit: an unknown mode.
    """
    mode, rest = "train", []
    words = iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag.replace("-", "_") == "__run_mode":
            mode = value if equals else next(words, "")
        else:
            rest.append(word)
    if mode not in VERBS:
        advice = "; rt2 train --dry_run says what a program needs" if mode == "precompile" else ""
        print(
            f"rt2_jax.main: error: --run_mode={mode}: expected one of {', '.join(VERBS)}{advice}",
            file=sys.stderr,
        )
        sys.exit(2)
    return [*VERBS[mode], *rest]


if __name__ == "__main__":
    sys.argv[1:] = arguments(sys.argv[1:])
    sys.exit(main())
