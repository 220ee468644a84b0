"""gin files -> `RunConfig`: the only place of the trainer that knows gin.

Every name in the files is checked before gin evaluates anything, so that a typo is one line with
the file, the line and the right name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import graphlib
import inspect
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import gin
from gin import config_parser

from rt2_jax.actions.binning import CODECS
from rt2_jax.models.config import REGISTRY as MODEL_CONFIGS
from rt2_jax.models.config import ModelConfig
from rt2_jax.training.adafactor import Adafactor
from rt2_jax.training.loop import LoopConfig
from rt2_jax.training.mesh import MeshShape
from rt2_jax.training.optimizers import AdamW
from rt2_jax.training.run_config import RunConfig
from rt2_jax.training.schedules import LearningRate
from rt2_jax.training.step import StepConfig
from rt2_jax.training.value_types import check_types

CONFIGURABLES: Mapping[str, type] = {
    cls.__name__: cls
    for cls in (
        RunConfig,
        *MODEL_CONFIGS.values(),
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
      ValueError: what is no gin, and a value that cannot be.
    """
    found, texts = _read_all(files, bindings, search_paths)
    _check(found)
    with _parsed(found, texts):
        config = gin.get_configurable("RunConfig")()
        return config, gin.operative_config_str(max_line_length=100)


def load_model_config(
    files: Sequence[str], bindings: Sequence[str] = (), search_paths: Sequence[str] = ()
) -> ModelConfig | None:
    """The model of gin files that describe a model and no run; None of others.

    Arguments and errors are those of `load_run_config`.
    """
    found, texts = _read_all(files, bindings, search_paths)
    bound = {each.parameter for each in found if each.name == "RunConfig"}
    if "model" not in bound or "mixture" in bound:
        return None
    _check(found, whole=False)
    with _parsed(found, texts):
        model = gin.query_parameter("RunConfig.model")
        return model.scoped_configurable_fn()


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


def _read_all(
    files: Sequence[str], bindings: Sequence[str], search_paths: Sequence[str]
) -> tuple[list[Binding], list[str]]:
    """What the files and bindings say, and their text with includes in their place."""
    places = [pathlib.Path(), *map(pathlib.Path, search_paths), SHIPPED, SHIPPED.parent]
    found: list[Binding] = []
    texts: list[str] = []
    for file in files:
        _read(find_file(file, places), places, found, texts, ())
    for binding in bindings:
        _parse(binding, f"--gin.{binding}", places, found, texts, (), flag=True)
    return found, texts


@contextlib.contextmanager
def _parsed(found: Sequence[Binding], texts: Sequence[str]) -> Iterator[None]:
    """Within it gin holds these files; its errors name the file and the line."""
    gin.clear_config(clear_constants=True)
    try:
        with gin.unlock_config():
            gin.parse_config(texts)
            yield
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(_with_place(str(error), found)) from error
    finally:
        gin.clear_config(clear_constants=True)


def _read(
    path: pathlib.Path,
    places: Sequence[pathlib.Path],
    found: list[Binding],
    texts: list[str],
    including: tuple[pathlib.Path, ...],
) -> None:
    if path in including:
        raise ValueError(f"{path}: includes itself through {', '.join(map(str, including))}")
    _parse(path.read_text(), str(path), places, found, texts, (*including, path))


def _parse(
    text: str,
    where: str,
    places: Sequence[pathlib.Path],
    found: list[Binding],
    texts: list[str],
    including: tuple[pathlib.Path, ...],
    flag: bool = False,
) -> None:
    """Adds the bindings of a text to `found` and its lines to `texts`, includes in their place."""
    lines, done = text.splitlines(), 0
    try:
        for statement in config_parser.ConfigParser(text, _References()):
            at = where if flag else f"{where}, line {statement.location.line_num}"
            if isinstance(statement, config_parser.IncludeStatement):
                line = statement.location.line_num
                texts.append("\n".join(lines[done : line - 1]))
                done = line
                _read(find_file(statement.filename, places), places, found, texts, including)
            elif isinstance(statement, config_parser.BindingStatement):
                references = _references_in(statement.value)
                macros = tuple(each.name for each in references if each.macro)
                classes = tuple(each.name for each in references if not each.macro)
                name, parameter = statement.selector, statement.arg_name
                found.append(Binding(name, parameter, at, macros, classes, _REQUIRED in macros))
            elif isinstance(statement, config_parser.ImportStatement):
                raise ValueError(f"{at}: import statements are not used here; remove it")
    except SyntaxError as error:
        at = where if flag else f"{where}, line {error.lineno}"
        shown = (error.text or "").strip()
        raise ValueError(f"{at}: this is not gin: {error.msg} {shown!r}") from None
    texts.append("\n".join(lines[done:]))


def _check(found: Sequence[Binding], whole: bool = True) -> None:
    """Refuses names that nothing knows, macros that nothing uses and values that are missing.

    Of files that describe no whole run, the run's own values and macros may be missing or unused.
    """
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
        if whole and not each.parameter:
            _check_name(each.name, used, each.where, "macro")
    last = {(each.name, each.parameter): each for each in found}
    missing = [each for each in last.values() if each.required]
    if whole and missing:
        names = [f"{each.name}{'.' if each.parameter else ''}{each.parameter}" for each in missing]
        flags = " ".join(f"--gin.{name}=..." for name in names)
        raise KeyError(f"{missing[0].where}: required values are missing; give them: {flags}")
    graph: dict[str, list[str]] = {}
    for each in last.values():
        names = [*each.macros, *(name.split("/")[-1] for name in each.configurables)]
        graph.setdefault(each.name, []).extend(names)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1][::-1]
        where = next(each.where for each in last.values() if each.name == circle[0])
        raise ValueError(f"{where}: goes in a circle: {' -> '.join(circle)}") from None
    called = {name.split("/")[-1] for each in last.values() for name in each.configurables}
    lacking = [
        f"{name}.{field.name}"
        for name in (*(["RunConfig"] if whole else []), *sorted(called))
        for field in dataclasses.fields(CONFIGURABLES[name])
        if field.default is field.default_factory is dataclasses.MISSING
        and (name, field.name) not in last
    ]
    if lacking:
        raise KeyError(
            f"the gin files say nothing about {', '.join(lacking)}; bind them, or include a file "
            "that does, such as 'runs/base.gin'"
        )


def _check_name(name: str, known: Iterable[str], where: str, what: str, mark: str = "") -> None:
    known = sorted(known)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {mark}{near[0]}?" if near else f"known: {', '.join(known)}"
        raise KeyError(f"{where}: unknown {what} {mark}{name}; {advice}")


def _with_place(message: str, found: Sequence[Binding]) -> str:
    """The first line (gin puts its own trace of calls below), after where the value was bound."""
    message = message.strip().splitlines()[0]
    last = {(each.name, each.parameter): each for each in found}
    match = re.match(r"(\w+)\.(\w+):", message)
    binding = last.get((match[1], match[2])) if match else None
    while binding is not None and len(binding.macros) == 1:
        binding = last[binding.macros[0], ""]
    return message if binding is None else f"{binding.where}: {message}"


def _checked(cls: type) -> Any:
    """What gin calls for a class: types first."""

    @functools.wraps(cls, updated=())
    def make(**values: Any) -> Any:
        check_types(cls, values)
        return cls(**values)

    make.__signature__ = inspect.signature(cls)  # type: ignore[attr-defined]
    return make


for _name, _cls in CONFIGURABLES.items():
    gin.external_configurable(_checked(_cls), name=_name, module="rt2_jax")
