"""gin files -> `RunConfig`, or what another command reads: the only place that knows gin.

Every name in the files is checked before gin evaluates anything, so that a typo is one line with
the file, the line and the right name.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import gin

from rt2_jax.actions.binning import CODECS
from rt2_jax.models.config_json import REGISTRY as MODEL_CONFIGS
from rt2_jax.models.config_json import ModelConfig
from rt2_jax.training import t5x_gin
from rt2_jax.training.adafactor import Adafactor
from rt2_jax.training.ema import EMA
from rt2_jax.training.gin_checks import COMMANDS, check_names
from rt2_jax.training.gin_statements import SHIPPED, Binding, Statements
from rt2_jax.training.loop import LoopConfig
from rt2_jax.training.lora import LoRA
from rt2_jax.training.mesh import MeshShape
from rt2_jax.training.optax_schedules import OptaxSchedule
from rt2_jax.training.optimizers import SGD, AdamW, Lion
from rt2_jax.training.run_config import RunConfig
from rt2_jax.training.schedules import LearningRate
from rt2_jax.training.step import StepConfig
from rt2_jax.training.value_types import check_types

Config = TypeVar("Config")

CONFIGURABLES: Mapping[str, type] = {
    cls.__name__: cls
    for cls in (
        RunConfig,
        *MODEL_CONFIGS.values(),
        Adafactor,
        AdamW,
        Lion,
        SGD,
        LearningRate,
        OptaxSchedule,
        EMA,
        LoRA,
        MeshShape,
        StepConfig,
        LoopConfig,
        *CODECS.values(),
    )
}


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
    return load_config(RunConfig, CONFIGURABLES, files, bindings, search_paths)


def load_config(
    root: type[Config],
    configurables: Mapping[str, type],
    files: Sequence[str],
    bindings: Sequence[str] = (),
    search_paths: Sequence[str] = (),
) -> tuple[Config, str]:
    """As `load_run_config`, of another kind of file.

    Args:
      root: the dataclass that is made.
      configurables: name -> dataclass, all that the files may bind, `root` among them.
      files: as in `load_run_config`, as are the others.
    """
    found, texts = _read_all(files, bindings, search_paths, root.__name__)
    check_names(found, configurables, root.__name__)
    for name, cls in configurables.items():
        _register(name, cls)
    with _parsed(found, texts):
        config = gin.get_configurable(root.__name__)()
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
    check_names(found, CONFIGURABLES, "RunConfig", whole=False)
    with _parsed(found, texts):
        model = gin.query_parameter("RunConfig.model")
        return model.scoped_configurable_fn()


def _read_all(
    files: Sequence[str],
    bindings: Sequence[str],
    search_paths: Sequence[str],
    root: str = "RunConfig",
) -> tuple[list[Binding], list[str]]:
    """What the files and bindings say, and their text with includes in their place."""
    places = [pathlib.Path(), *map(pathlib.Path, search_paths), SHIPPED, SHIPPED.parent]
    statements = Statements(places)
    for file in files:
        statements.read(file)
    for binding in bindings:
        statements.parse(binding, f"--gin.{binding}", flag=True)
    if statements.imports and root != "RunConfig":
        raise ValueError(
            f"{files[-1]}: it imports, as files for T5X do, and of these `rt2 train` alone reads "
            f"any; for `{COMMANDS[root]}` begin with the file of gin_configs/runs"
        )
    if statements.imports:
        statements = t5x_gin.translate(statements, CONFIGURABLES)
    return statements.bindings, statements.texts


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


@functools.cache
def _register(name: str, cls: type) -> None:
    """Makes a class known to gin, once."""
    gin.external_configurable(_checked(cls), name=name, module="rt2_jax")


for _name, _cls in CONFIGURABLES.items():
    _register(_name, _cls)
