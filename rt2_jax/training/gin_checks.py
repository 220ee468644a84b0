"""What is wrong with the names in gin files, before gin evaluates anything."""

from __future__ import annotations

import dataclasses
import graphlib
from collections.abc import Collection, Mapping, Sequence, Set

from rt2_jax.training.gin_statements import REQUIRED, Binding, check_name, check_required

COMMANDS: Mapping[str, str] = {
    "RunConfig": "rt2 train",
    "EvalConfig": "rt2 eval offline",
    "InferConfig": "rt2 eval infer",
    "ExportConfig": "rt2 convert",
}
"""The class that a kind of gin file makes, and the command that reads such files."""

_LENGTHS = (
    'is a part of TASK_FEATURE_LENGTHS now: --gin.TASK_FEATURE_LENGTHS=\'{"inputs": tokens of '
    'prompts, "targets": of answers}\''
)
_EVALUATE = "is not here: evaluation is a process beside training, see docs/evaluation.md"
_INSTEAD: Mapping[str, str] = {
    "MIXTURE": "is called MIXTURE_OR_TASK_NAME now, as in T5X",
    "SEED": "is called RANDOM_SEED now, as in T5X",
    "ENCODER_LENGTH": _LENGTHS,
    "DECODER_LENGTH": _LENGTHS,
    "RunConfig.encoder_length": _LENGTHS,
    "RunConfig.decoder_length": _LENGTHS,
    # T5X's, which have no equal.
    "USE_CACHED_TASKS": "is not here: `rt2 data cache`, or `rt2 data resolve --uncached`",
    "SHUFFLE_TRAIN_EXAMPLES": "is not here: training data are always shuffled",
    "MIXTURE_OR_TASK_MODULE": "is not here: give --module=MODULE",
    "TRAIN_STEPS_RELATIVE": "is not here: TRAIN_STEPS counts those before a restart too",
    "USE_HARDWARE_RNG": "is not here: keys are JAX's",
    "EVAL_PERIOD": _EVALUATE,
    "EVAL_STEPS": _EVALUATE,
}
"""Names of before and of T5X, and what is said here."""
_OF_CHECKPOINT = "is the checkpoint's, which describes itself: leave it out"


def check_names(
    found: Sequence[Binding],
    configurables: Mapping[str, type],
    root: str,
    whole: bool = True,
) -> None:
    """Refuses names that nothing knows, what nothing uses and values that are missing.

    Args:
      found: all bindings, in their order; later ones win.
      configurables: name -> dataclass, those of this kind of file.
      root: the name of the one that the file makes.
      whole: False for files that describe a part: values and macros may be missing or unused.

    Raises:
      KeyError, ValueError: the message has the place and the right name.
    """
    macros = {each.name for each in found if not each.parameter}
    used = {macro for each in found for macro in each.macros} - {REQUIRED}
    for each in found:
        _check_kind(each, macros, used, configurables, root)
    for each in found:
        if each.parameter:
            check_name(each.name, configurables, each.where, "configurable")
            fields = [field.name for field in dataclasses.fields(configurables[each.name])]
            what = f"parameter of {each.name}"
            check_name(each.parameter, fields, each.where, what, f"{each.name}.")
        for name in each.configurables:
            check_name(name.split("/")[-1], configurables, each.where, "configurable", "@")
        for name in each.macros:
            if name != REQUIRED:
                check_name(name, macros, each.where, "macro", "%")
        if whole and not each.parameter:
            check_name(each.name, used, each.where, "macro")
    last = {(each.name, each.parameter): each for each in found}
    if whole:
        check_required(last)
    _check_circles(last)
    _check_used(found, last, root)
    _check_missing(last, configurables, root, whole)


def _check_kind(
    each: Binding,
    macros: Set[str],
    used: Set[str],
    configurables: Mapping[str, type],
    root: str,
) -> None:
    """Refuses what stands for something here that has another name, or belongs to another kind."""
    for name in ({each.name} - used) if not each.parameter else ():
        _say_instead(name, each.where, root)
    for name in each.macros:
        if name != REQUIRED and name not in macros:
            _say_instead(name, each.where, root)
    if each.parameter:
        if each.name in configurables:
            _say_instead(f"{each.name}.{each.parameter}", each.where, root)
        elif each.name == "RunConfig":
            raise KeyError(
                f"{each.where}: RunConfig is of `rt2 train`; `{COMMANDS[root]}` takes the model "
                "from the checkpoint, so leave out files of models and of runs"
            )
        elif each.name in COMMANDS:
            raise KeyError(
                f"{each.where}: {each.name} is of `{COMMANDS[each.name]}`, and this is "
                f"`{COMMANDS[root]}`, which reads {root}"
            )


def _say_instead(name: str, where: str, root: str) -> None:
    if root != "RunConfig" and name in ("MODEL", "TASK_FEATURE_LENGTHS"):
        raise KeyError(f"{where}: {name} {_OF_CHECKPOINT}")
    if name in _INSTEAD:
        raise KeyError(f"{where}: {name} {_INSTEAD[name]}")


def _check_circles(last: Mapping[tuple[str, str], Binding]) -> None:
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


def _check_used(
    found: Sequence[Binding], last: Mapping[tuple[str, str], Binding], root: str
) -> None:
    """Refuses bindings of classes that are not made.

    In a file they may be of a class that a later line or flag has put another in the place of: a
    file with `OPTIMIZER = @AdamW()` and AdamW's numbers is included, and Adafactor chosen.
    """
    called = _called(last.values())
    replaced = _called(found)
    for each in found:
        known = called if each.where.startswith("--gin.") else replaced
        if each.parameter and each.name not in (*known, root):
            raise KeyError(
                f"{each.where}: this run has no {each.name}; it has {', '.join(sorted(called))}"
            )


def _check_missing(
    last: Mapping[tuple[str, str], Binding],
    configurables: Mapping[str, type],
    root: str,
    whole: bool,
) -> None:
    lacking = [
        f"{name}.{field.name}"
        for name in (*([root] if whole else []), *sorted(_called(last.values())))
        for field in dataclasses.fields(configurables[name])
        if field.default is field.default_factory is dataclasses.MISSING
        and (name, field.name) not in last
    ]
    if lacking:
        files = {"RunConfig.model": "models/rt2_palix_tiny.gin"}
        raise KeyError(
            f"the gin files say nothing about {', '.join(lacking)}; bind them, or include a file "
            f"that does, such as {files.get(lacking[0], 'runs/base.gin')!r}"
        )


def _called(bindings: Collection[Binding]) -> set[str]:
    return {name.split("/")[-1] for each in bindings for name in each.configurables}
