"""The `rt2` command: finds the verb, imports its module, turns bad input into one line.

A verb `foo` is a line in `VERBS` and a module `rt2_jax.cli.foo` with two functions:

    add_parser(subparsers): adds the parser "foo" with its options and sub-verbs
    run(args) -> int | None: does it; the result is the exit status

The module is imported only when its verb is called. Bad input is raised as `ValueError`, `KeyError`
or `OSError` with a message for a person; a missing package is answered with the extra to install.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rt2_jax import __version__


@dataclass(frozen=True)
class Verb:
    """One line of `rt2 --help`.

    Attributes:
      help: what the verb does.
      extra: the extra of the distribution that installs what the verb imports.
    """

    help: str
    extra: str


VERBS = {
    "sim": Verb("the table-top world: list, record demonstrations, roll out policies", "sim,data"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `rt2` with `argv` (default: the process's arguments) and returns the exit status.

    Status 2 stands for bad input (`RT2_TRACEBACK=1` shows where it was noticed), 130 for Ctrl-C,
    141 for a reader that has gone.
    """
    arguments = _with_dashes(sys.argv[1:] if argv is None else argv)
    name = next((argument for argument in arguments if not argument.startswith("-")), None)
    if name is not None and name not in VERBS:
        return _fail("rt2", f"unknown verb {name!r}{_nearest(name)} (verbs: {', '.join(VERBS)})")
    try:
        return _run(name, arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `rt2 ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("rt2_jax") or name is None:
            raise
        extra = VERBS[name].extra
        return _fail(f"rt2 {name}", f"needs {error.name!r}: pip install 'rt2-jax[{extra}]'")
    except (ValueError, KeyError, OSError) as error:
        if os.environ.get("RT2_TRACEBACK") == "1":
            raise
        # str(KeyError) is its message in quotes
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        return _fail(f"rt2 {name}", str(message) or type(error).__name__)


def _run(name: str | None, arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="rt2", description="The open RT-2: robot policies from vision-language models."
    )
    parser.add_argument("--version", action="version", version=f"rt2 {__version__}")
    subparsers = parser.add_subparsers(metavar="VERB")
    if name is None:
        for verb, line in VERBS.items():
            subparsers.add_parser(verb, help=line.help)
        parser.parse_args(arguments)
        parser.print_help()
        return 2
    module = importlib.import_module(f"rt2_jax.cli.{name}")
    module.add_parser(subparsers)
    return module.run(parser.parse_args(arguments)) or 0


def _with_dashes(argv: Sequence[str]) -> list[str]:
    """Writes `--dry_run` with dashes; leaves values, `--gin.NAME=VALUE` and all after `--`."""
    end = argv.index("--") if "--" in argv else len(argv)
    arguments = list(argv)
    for position, argument in enumerate(argv[:end]):
        flag, equals, value = argument.partition("=")
        if flag.startswith("--") and "." not in flag:
            arguments[position] = flag.replace("_", "-") + equals + value
    return arguments


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, VERBS, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _fail(program: str, message: str) -> int:
    print(f"{program}: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
