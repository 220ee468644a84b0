"""The `rt2` command: finds the verb, imports its module, turns bad input into one line.

A verb `foo` is a line in `VERBS` and a module `rt2_jax.cli.foo` with two functions:

    add_parser(subparsers): adds the parser "foo" with its options and sub-verbs
    run(args) -> int | None: does it; the result is the exit status

The module is imported only when its verb is called. Bad input is raised as `ValueError`, `KeyError`
or `OSError` with a message for a person; a missing package is answered with the extra to install.
Everything else is a mistake in the program and keeps its traceback, also a `KeyError` whose message
is no sentence: it is the key that an ordinary dict didn't have.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from rt2_jax import __version__
from rt2_jax.cli.huge_pages import ask_for_huge_pages
from rt2_jax.cli.passed_on import PASSED_ON, split_off

_STDOUT = 1  # its file descriptor, whatever `sys.stdout` is


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
    "demo": Verb("the main job in small: record, co-fine-tune, serve, drive, report", "all"),
    "data": Verb("tasks and mixtures: list, show, inspect, check, stats, cache", "data,sim"),
    "train": Verb("trains what gin files describe", "train"),
    "eval": Verb("policies on recorded steps, on pictures, in closed loop", "train,eval,sim"),
    "serve": Verb("serves a checkpoint to robots", "serve,train"),
    "act": Verb("asks a policy server once and prints the action", "train"),
    "convert": Verb("a checkpoint's parameters alone, for serving", "train"),
    "sim": Verb("the table-top world: list, record demonstrations, roll out policies", "sim,data"),
    "bench": Verb(
        "how fast it is here, beside other ways to do it: data, save, serve", "data,train"
    ),
}


class _Parser(argparse.ArgumentParser):
    """Bad arguments are one line that names the nearest right one; flags cannot be abbreviated."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses flags that this parser does not know, instead of passing them upwards."""
        passed_on: list[str] = []
        if self.get_default(PASSED_ON) is not None:
            args, passed_on = split_off(args)
        known, unknown = super().parse_known_args(args, namespace)
        if passed_on:
            setattr(known, PASSED_ON, passed_on)
        flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if flags:
            options = [option for action in self._actions for option in action.option_strings]
            self.error(f"unknown option {flags[0]!r}{_nearest(flags[0], options)}")
        return known, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            near = _nearest(str(value), known)
            self.error(f"unknown {action.metavar or 'value'} {value!r}{near} ({', '.join(known)})")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `rt2` with `argv` (default: the process's arguments) and returns the exit status.

    Status 2 stands for bad input (`RT2_TRACEBACK=1` shows where it was noticed), 130 for Ctrl-C
    or SIGTERM, 141 for a reader that has gone.
    """
    if argv is None:  # this is the process's own main; a cluster stops it with SIGTERM
        ask_for_huge_pages()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = _with_dashes(sys.argv[1:] if argv is None else argv)
    name = next((argument for argument in arguments if not argument.startswith("-")), None)
    if name is not None and name not in VERBS:
        return _fail(
            "rt2", f"unknown verb {name!r}{_nearest(name, VERBS)} (verbs: {', '.join(VERBS)})"
        )
    return answered(name, lambda: _run(name, arguments))


def answered(name: str | None, verb: Callable[[], int]) -> int:
    """Does what a verb does; the exit status, after one line where it was bad input."""
    try:
        status = verb()
        sys.stdout.flush()  # a reader that has gone is noticed here, not after the last line
        return status
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("rt2_jax") or name is None:
            raise
        extra = VERBS[name].extra
        return _fail(f"rt2 {name}", f"needs {error.name!r}: pip install 'rt2-jax[{extra}]'")
    except (ValueError, KeyError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _reader_has_gone():
            return 141
        # str(KeyError) is its message in quotes
        message = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
        mistake = isinstance(error, KeyError) and " " not in message
        if mistake or os.environ.get("RT2_TRACEBACK") == "1":
            raise
        return _fail(f"rt2 {name}", message or type(error).__name__)


def _run(name: str | None, arguments: Sequence[str]) -> int:
    parser = _Parser(
        prog="rt2",
        description="The open RT-2: robot policies from vision-language models.",
        epilog="Bad input is answered with one line; RT2_TRACEBACK=1 shows where it was noticed.",
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


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _reader_has_gone() -> bool:
    """Whether nobody reads the output any more (`rt2 ... | head`); if so, the rest is dropped."""
    output = select.poll()
    output.register(_STDOUT, 0)  # without being asked for, an error is told
    gone = bool(output.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
    return gone


def _fail(program: str, message: str) -> int:
    print(f"{program}: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    status = main()
    # Python ends `-m` by SIGINT, whatever the status, if an interrupt has gone through an
    # exec("..."), as libraries do while they are imported, and none that went well came after it.
    exec("")
    sys.exit(status)
