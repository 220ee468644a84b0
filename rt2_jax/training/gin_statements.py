"""What stands in gin files, statement by statement; nothing is evaluated or imported."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gin import config_parser

SHIPPED = pathlib.Path(__file__).parent.parent / "gin_configs"
REQUIRED = "gin.REQUIRED"
# What files for T5X import. The statements say what names stand for; nothing is loaded.
_T5X_PACKAGES = ("__gin__", "__main__", "rt2_jax", "seqio", "t5x")


@dataclasses.dataclass(frozen=True)
class Reference:
    """What stands in a value for `@name` or `%name`."""

    name: str
    macro: bool


@dataclasses.dataclass(frozen=True)
class Binding:
    """One `NAME.parameter = value`, or `NAME = value` of a macro, as it stands in a file.

    Attributes:
      name: of a configurable, or of a macro.
      parameter: of the configurable; empty for a macro.
      where: file and line, or the flag.
      macros: that the value refers to.
      configurables: that the value refers to.
      required: the value is `%gin.REQUIRED`.
      scope: of the configurable, `train` in `train/utils.DatasetConfig`; empty without.
      value: with a `Reference` in the place of every `@name` and `%name`.
    """

    name: str
    parameter: str
    where: str
    macros: tuple[str, ...]
    configurables: tuple[str, ...]
    required: bool
    scope: str
    value: Any


class Statements:
    """The statements of gin files and flags, in their order, includes in their place.

    Args:
      places: the folders where included files are looked for.

    Attributes:
      bindings: all of them.
      texts: the lines without the includes.
      imports: local name -> module, of files for T5X.
    """

    def __init__(self, places: Sequence[pathlib.Path]) -> None:
        self._places = places
        self.bindings: list[Binding] = []
        self.texts: list[str] = []
        self.imports: dict[str, str] = {}

    def read(self, file: str, including: tuple[pathlib.Path, ...] = ()) -> None:
        """Adds a file.

        Raises:
          FileNotFoundError: no such file.
          ValueError: it is no gin, or includes itself.
        """
        path = find_file(file, self._places)
        if path in including:
            raise ValueError(f"{path}: includes itself through {', '.join(map(str, including))}")
        self.parse(path.read_text(), str(path), (*including, path))

    def parse(
        self, text: str, where: str, including: tuple[pathlib.Path, ...] = (), flag: bool = False
    ) -> None:
        """Adds a text; of a flag there are no lines to name."""
        lines, done = text.splitlines(), 0
        try:
            for statement in config_parser.ConfigParser(text, _References()):
                line = statement.location.line_num
                at = where if flag else f"{where}, line {line}"
                if isinstance(statement, config_parser.BindingStatement):
                    self.bindings.append(_binding(statement, at))
                elif isinstance(statement, config_parser.IncludeStatement):
                    self.texts.append("\n".join(lines[done : line - 1]))
                    done = line
                    self.read(statement.filename, including)
                elif isinstance(statement, config_parser.ImportStatement):
                    self._import(statement, at)
        except SyntaxError as error:
            at = where if flag else f"{where}, line {error.lineno}"
            shown = (error.text or "").strip()
            raise ValueError(f"{at}: this is not gin: {error.msg} {shown!r}") from None
        self.texts.append("\n".join(lines[done:]))

    def _import(self, statement: config_parser.ImportStatement, at: str) -> None:
        module = statement.module
        if module.partition(".")[0] not in _T5X_PACKAGES:
            raise ValueError(
                f"{at}: import statements are not used here; remove it (--module registers tasks)"
            )
        name = statement.bound_name()
        whole = statement.is_from or statement.alias
        self.imports[name] = module if whole else name


def find_file(name: str, places: Iterable[pathlib.Path]) -> pathlib.Path:
    """The first of the places that has the file.

    Raises:
      FileNotFoundError: none has; the message names gin files with a similar name.
    """
    places = list(places)
    for place in places:
        if (place / name).is_file():
            return place / name
    known = sorted(str(path.relative_to(SHIPPED)) for path in SHIPPED.rglob("*.gin"))
    near = difflib.get_close_matches(name.removeprefix("gin_configs/"), known, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
    shown = ", ".join(str(place) for place in places)
    raise FileNotFoundError(f"no gin file {name!r} in {shown}; {advice}")


def check_name(name: str, known: Iterable[str], where: str, what: str, mark: str = "") -> None:
    """Refuses a name that is not known.

    Raises:
      KeyError: with the place and the nearest right name.
    """
    known = sorted(known)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {mark}{near[0]}?" if near else f"known: {', '.join(known)}"
        raise KeyError(f"{where}: unknown {what} {mark}{name}; {advice}")


def check_required(last: Mapping[Any, Binding]) -> None:
    """Refuses values that are still to be given.

    Raises:
      KeyError: with the flags that give them.
    """
    missing = [each for each in last.values() if each.required]
    if missing:
        names = [f"{each.name}{'.' if each.parameter else ''}{each.parameter}" for each in missing]
        flags = " ".join(f"--gin.{name}=..." for name in names)
        raise KeyError(f"{missing[0].where}: required values are missing; give them: {flags}")


class _References(config_parser.ParserDelegate):
    """Leaves references as they are."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(scoped_configurable_name, macro=False)

    def macro(self, macro_name: str) -> Reference:
        return Reference(macro_name, macro=True)


def _binding(statement: config_parser.BindingStatement, at: str) -> Binding:
    references = _references_in(statement.value)
    macros = tuple(each.name for each in references if each.macro)
    classes = tuple(each.name for each in references if not each.macro)
    return Binding(
        statement.selector,
        statement.arg_name or "",
        at,
        macros,
        classes,
        REQUIRED in macros,
        statement.scope or "",
        statement.value,
    )


def _references_in(value: Any) -> list[Reference]:
    if isinstance(value, Reference):
        return [value]
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        return [reference for each in value for reference in _references_in(each)]
    return []
