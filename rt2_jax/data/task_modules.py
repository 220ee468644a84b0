"""Tasks in a process that has not registered them: modules by name, and what they must agree on."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import seqio

from rt2_jax.actions.identity import differences
from rt2_jax.data.cache_shard import CacheWork
from rt2_jax.data.registration import step_format


def import_tasks(module: str) -> None:
    """Imports a module that registers tasks, from this folder too.

    Raises:
      ValueError: no such module.
    """
    sys.path.insert(0, os.getcwd())
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"--module {module}: no such module here or installed") from error
    finally:
        sys.path.pop(0)


def declaration(task: seqio.Task) -> dict[str, Any]:
    """What a task declares of its steps, as JSON; a loss weight and metrics are no part."""
    info = dataclasses.replace(step_format(task).info, loss_weight=1.0, metrics=None)
    found: dict[str, Any] = json.loads(json.dumps(info.to_json()))
    return found


def open_task(work: CacheWork, modules: Sequence[str]) -> seqio.Task:
    """The task of the work, in a process that has not registered it.

    Args:
      work: what is to be cached.
      modules: those that register tasks.

    Raises:
      ValueError: no such module, the task is not registered by them, or declares something else.
    """
    os.environ["RT2_DATA_DIR"] = str(work.data_dir)
    for module in modules:
        import_tasks(module)
    if work.task not in seqio.TaskRegistry.names():
        raise ValueError(
            f"task {work.task!r} is not registered in the processes that are to cache it, which "
            f"import {', '.join(modules) or 'nothing'}; name the module that registers it: --module"
        )
    task = seqio.TaskRegistry.get(work.task)
    if lines := differences(declaration(task), work.info):
        raise ValueError(
            f"task {work.task!r} declares something else in the processes that are to cache it: "
            f"{'; '.join(lines)}; install the same version of its module everywhere"
        )
    return task
