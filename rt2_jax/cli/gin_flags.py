"""T5X's gin flags, for every verb that reads gin files."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Mapping
from typing import TypeVar

Config = TypeVar("Config")
_GIN = ("gin_file", "gin_bindings", "gin_search_paths", "gin_defaults", "dry_run")


def add_gin_flags(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """Adds `--gin_file`, `--gin.NAME=VALUE`, `--gin_bindings` and `--gin_search_paths`.

    Flags that are added before have no say beside a gin file: see `config_of`.
    """
    defaults = {action.dest: action.default for action in parser._actions}
    parser.set_defaults(gin_defaults=defaults)
    parser.add_argument(
        "--gin-file",
        action="append",
        required=required,
        help="a path, or one below rt2_jax/gin_configs; may be given again, later ones win",
    )
    parser.add_argument(
        "--gin-bindings",
        "--gin-binding",
        action="append",
        default=[],
        metavar="'NAME = VALUE'",
        help="as --gin.NAME=VALUE, with the value as gin writes it; may be given again",
    )
    parser.add_argument(
        "--gin-search-paths",
        type=lambda text: text.split(","),
        default=[],
        help="folders to look for gin files in too, with commas between",
    )
    parse = parser.parse_known_args

    def parse_known_args(args=None, namespace=None):  # type: ignore[no-untyped-def]
        return parse([_as_binding(argument) for argument in args or ()], namespace)

    parser.parse_known_args = parse_known_args  # type: ignore[method-assign]


def config_of(
    args: argparse.Namespace, root: type[Config], needed: Mapping[str, str]
) -> tuple[Config, str] | None:
    """What gin files make of `root`, and their text; None where the flags say all.

    Args:
      args: of a parser with `add_gin_flags`.
      root: the dataclass.
      needed: flags that must be given where there is no gin file, dest -> what it is called.

    Raises:
      ValueError: values both in gin and as flags, or neither.
    """
    from rt2_jax.training.gin_files import load_config

    if not args.gin_file:
        missing = [name for dest, name in needed.items() if getattr(args, dest) is None]
        if args.gin_bindings or args.gin_search_paths or missing:
            what = ", ".join(missing) or "--gin_file, for what else stands in gin"
            raise ValueError(f"missing: {what}; give it, or all of it in --gin_file=...")
        return None
    given = [
        name
        for name, default in args.gin_defaults.items()
        if name not in _GIN and getattr(args, name, default) != default
    ]
    if given:
        raise ValueError(
            f"found {', '.join(given)} beside --gin_file, where --gin.NAME=VALUE gives values: say "
            "it there"
        )
    files = (args.gin_file, args.gin_bindings, args.gin_search_paths)
    return load_config(root, {root.__name__: root}, *files)


def _as_binding(argument: str) -> str:
    """`--gin.NAME=VALUE` -> `--gin-bindings=NAME=VALUE`, with plain text in quotes."""
    if not argument.startswith("--gin."):
        return argument
    name, equals, value = argument.removeprefix("--gin.").partition("=")
    try:
        ast.literal_eval(value)
    except (SyntaxError, ValueError):
        if not value.startswith(("@", "%", "[", "(", "{")):
            value = repr(value)
    return f"--gin-bindings={name}{equals}{value}"
