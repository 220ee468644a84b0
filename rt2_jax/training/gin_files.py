"""gin files -> `RunConfig`: the only place of the trainer that knows gin.

Every name in the files is checked before gin evaluates anything, so that a typo is one line with
the file, the line and the right name.
"""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gin
from gin import config_parser

from rt2_jax.actions.binning import CODECS
from rt2_jax.models.config import TextConfig, VisionConfig, VisionLanguageConfig
from rt2_jax.training.adafactor import Adafactor
from rt2_jax.training.loop import LoopConfig
from rt2_jax.training.mesh import MeshShape
from rt2_jax.training.optimizers import AdamW
from rt2_jax.training.run import RunConfig
from rt2_jax.training.schedules import LearningRate
from rt2_jax.training.step import StepConfig

CONFIGURABLES: Mapping[str, type] = {
    cls.__name__: cls
    for cls in (
        RunConfig,
        VisionLanguageConfig,
        VisionConfig,
        TextConfig,
        Adafactor,
        AdamW,
        LearningRate,
        MeshShape,
        StepConfig,
        LoopConfig,
        *CODECS.values(),
    )
}
SHIPPED = pathlib.Path(__file__).parent.parent / "gin_configs"
_REQUIRED = "gin.REQUIRED"


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
    """

    name: str
    parameter: str
    where: str
    macros: tuple[str, ...]
    configurables: tuple[str, ...]
    required: bool


def load_run_config(
    files: Sequence[str], bindings: Sequence[str] = (), search_paths: Sequence[str] = ()
) -> tuple[RunConfig, str]:
    """The run that gin files describe.

    Args:
      files: a path, or one below `rt2_jax/gin_configs`; later ones win.
      bindings: `NAME=VALUE` of macros and `NAME.parameter=VALUE`; they win over files.
      search_paths: folders where files and what they include are looked for too.

    Returns:
      The configuration and its resolved gin text, for people to read.

    Raises:
      FileNotFoundError: no such file.
      KeyError: an unknown name, with the nearest right one; or required values are missing.
      TypeError, ValueError: a value that cannot be.
    """
    places = [pathlib.Path(), *map(pathlib.Path, search_paths), SHIPPED, SHIPPED.parent]
    found: list[Binding] = []
    texts: list[str] = []
    for file in files:
        _read(find_file(file, places), places, found, texts, ())
    for binding in bindings:
        # The command line: `--gin.X=name` may stand for the text 'name', as in a shell.
        found += _parse(binding, f"--gin.{binding}", places, found, texts, (), flag=True)
    _check(found)
    gin.clear_config(clear_constants=True)
    try:
        with gin.unlock_config():
            gin.parse_config([*texts, *bindings])
            config = gin.get_configurable("RunConfig")()
            return config, gin.operative_config_str(max_line_length=100)
    except (TypeError, ValueError, KeyError) as error:
        raise type(error)(_first_words(error)) from error
    finally:
        gin.clear_config(clear_constants=True)


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


def macros_of(file: str) -> dict[str, tuple[str, str]]:
    """The macros of a shipped gin file and what it includes: name -> (value, file)."""
    places = [SHIPPED, SHIPPED.parent]
    macros: dict[str, tuple[str, str]] = {}

    def read(path: pathlib.Path) -> None:
        for line in path.read_text().splitlines():
            if line.startswith("include"):
                read(find_file(line.split(None, 1)[1].strip("'\""), places))
            name, equals, value = line.partition("=")
            if equals and name.strip().isupper() and "." not in name:
                value = value.partition("#")[0].strip()
                macros[name.strip()] = (value, str(path.relative_to(SHIPPED)))

    read(find_file(file, places))
    return macros


@dataclasses.dataclass(frozen=True)
class _Reference:
    """What stands in a value for `@name` or `%name`."""

    name: str
    macro: bool


class _References(config_parser.ParserDelegate):
    """Leaves references as they are."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> _Reference:
        return _Reference(scoped_configurable_name, macro=False)

    def macro(self, macro_name: str) -> _Reference:
        return _Reference(macro_name, macro=True)


def _references_in(value: Any) -> list[_Reference]:
    if isinstance(value, _Reference):
        return [value]
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        return [reference for each in value for reference in _references_in(each)]
    return []


def _read(
    path: pathlib.Path,
    places: Sequence[pathlib.Path],
    found: list[Binding],
    texts: list[str],
    including: tuple[pathlib.Path, ...],
) -> None:
    if path in including:
        raise ValueError(f"{path}: includes itself through {', '.join(map(str, including))}")
    found += _parse(path.read_text(), str(path), places, found, texts, (*including, path))


def _parse(
    text: str,
    where: str,
    places: Sequence[pathlib.Path],
    found: list[Binding],
    texts: list[str],
    including: tuple[pathlib.Path, ...],
    flag: bool = False,
) -> list[Binding]:
    """The bindings of a text; those of what it includes go to `found` first."""
    bindings = []
    try:
        for statement in config_parser.ConfigParser(text, _References()):
            at = where if flag else f"{where}, line {statement.location.line_num}"
            if isinstance(statement, config_parser.IncludeStatement):
                _read(find_file(statement.filename, places), places, found, texts, including)
            elif isinstance(statement, config_parser.BindingStatement):
                references = _references_in(statement.value)
                macros = tuple(each.name for each in references if each.macro)
                classes = tuple(each.name for each in references if not each.macro)
                name, parameter = statement.selector, statement.arg_name
                bindings.append(Binding(name, parameter, at, macros, classes, _REQUIRED in macros))
            elif isinstance(statement, config_parser.ImportStatement):
                raise ValueError(f"{at}: import statements are not used here; remove it")
    except SyntaxError as error:
        line = "" if flag else f", line {error.lineno}"
        shown = (error.text or "").strip()
        raise ValueError(f"{where}{line}: this is not gin: {error.msg} {shown!r}") from None
    own = [line for line in text.splitlines() if not line.startswith("include")]
    texts.append("\n".join(own))
    return bindings


def _check(found: Sequence[Binding]) -> None:
    """Refuses names that nothing knows, macros that nothing uses and values that are missing."""
    macros = {each.name for each in found if not each.parameter}
    used = {macro for each in found for macro in each.macros} - {_REQUIRED}
    for each in found:
        for name in (each.name,) if each.parameter else ():
            _check_name(name, CONFIGURABLES, each.where, "configurable")
            fields = [field.name for field in dataclasses.fields(CONFIGURABLES[name])]
            _check_name(each.parameter, fields, each.where, f"parameter of {name}", f"{name}.")
        for name in each.configurables:
            _check_name(name.split("/")[-1], CONFIGURABLES, each.where, "configurable", "@")
        for name in each.macros:
            if name != _REQUIRED:
                _check_name(name, macros, each.where, "macro", "%")
        if not each.parameter:
            _check_name(each.name, used, each.where, "macro")
    last = {(each.name, each.parameter): each for each in found}
    missing = [each for each in last.values() if each.required]
    if missing:
        names = [f"{each.name}{'.' if each.parameter else ''}{each.parameter}" for each in missing]
        flags = " ".join(f"--gin.{name}=..." for name in names)
        raise KeyError(f"{missing[0].where}: required values are missing; give them: {flags}")
    given = {each.parameter for each in found if each.name == "RunConfig"}
    lacking = [
        field.name
        for field in dataclasses.fields(RunConfig)
        if field.default is field.default_factory is dataclasses.MISSING and field.name not in given
    ]
    if lacking:
        raise KeyError(
            f"the gin files say nothing about RunConfig.{', RunConfig.'.join(lacking)}; "
            "include 'runs/base.gin' or bind them"
        )


def _check_name(name: str, known: Iterable[str], where: str, what: str, mark: str = "") -> None:
    known = sorted(known)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {mark}{near[0]}?" if near else f"known: {', '.join(known)}"
        raise KeyError(f"{where}: unknown {what} {mark}{name}; {advice}")


def _first_words(error: Exception) -> str:
    """gin's errors carry its own trace of calls; the first line and the file say it all."""
    message = str(error.args[0]) if error.args else str(error)
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return " ".join(lines[:3])


for _name, _cls in CONFIGURABLES.items():
    gin.external_configurable(_cls, name=_name, module="rt2_jax")
