"""Checkpoints of a run: whole or not there, and self-describing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import pathlib
import re
import textwrap
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict

from rt2_jax.training.distributed import lost_peer
from rt2_jax.training.exits import LostPeerError
from rt2_jax.training.fingerprints import changed, fingerprints
from rt2_jax.training.freezing import check_same_frozen
from rt2_jax.training.keeping import KeepBest, preservation_policy
from rt2_jax.training.lora import ADAPTERS
from rt2_jax.training.train_state import TrainState, TrainStateInitializer

PREFIX = "checkpoint"
PRETRAINED = pathlib.Path(__file__).parent.parent / "pretrained"
STATE, DATASET, DESCRIPTION, PARAMS, EMA = "state", "dataset", "rt2", "params", "ema"
FINGERPRINTS = "fingerprints"  # of the arrays; a checkpoint written before it has none
_LOG = logging.getLogger(__name__)


class SaveError(OSError):
    """A checkpoint could not be written; those before it are whole."""


class Checkpoints:
    """The checkpoints of one run: `<directory>/checkpoint_<step>/` with its items.

    `state` is `TrainState.state_dict()`, as T5X writes it; `dataset` is where the data stands, as
    JSON; `rt2` describes what was trained, as JSON; `fingerprints` tell whether numbers have
    changed; `ema` is there if an average is kept. A checkpoint is written under another name and
    renamed when all of it is there. Writing goes on in the background.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        keep: int | None = None,
        keep_period: int | None = None,
        keep_best: KeepBest | None = None,
    ) -> None:
        """Opens or makes the directory.

        Args:
          directory: of the run.
          keep: so many of the latest are kept; None: all.
          keep_period: those whose step is a multiple of it are always kept.
          keep_best: the best of a metric are kept, too.
        """
        self.directory = directory.absolute()
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_names=(STATE, DATASET, DESCRIPTION, FINGERPRINTS, EMA),
            options=ocp.CheckpointManagerOptions(
                step_prefix=PREFIX,
                preservation_policy=preservation_policy(keep, keep_period, keep_best),
                cleanup_tmp_directories=True,
            ),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.ExitStack() as stack:
            if error is not None:  # It says more than what closing may find.
                stack.enter_context(contextlib.suppress(Exception))
            with self._writing():
                self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (SaveError, LostPeerError):
            raise
        except Exception as error:  # Orbax, TensorStore and the system have no error in common.
            if lost := lost_peer(error):  # all hosts write together
                raise lost from error
            reason = textwrap.shorten(str(error), 300) or "no reason given"
            raise SaveError(
                f"{self.directory}: a checkpoint could not be written ({type(error).__name__}: "
                f"{reason}); is the disk full? Those before it are whole: make room and start again"
            ) from error

    @property
    def latest_step(self) -> int | None:
        """The step of the latest whole checkpoint."""
        return self._manager.latest_step()

    def save(
        self, state: TrainState, dataset: Mapping[str, Any], description: Mapping[str, Any]
    ) -> None:
        """Begins to write a checkpoint; waits only for one that is still being written.

        Args:
          state: may be donated as soon as this returns.
          dataset: the data's position after this state's last step, plain JSON.
          description: plain JSON.

        Raises:
          ValueError: there is one of this step or of a later one.
          SaveError: the one before could not be written, or this one cannot.
        """
        tree = state.state_dict()
        average = {} if state.ema is None else {EMA: ocp.args.PyTreeSave(state.ema)}
        items = ocp.args.Composite(
            **average,
            **{
                FINGERPRINTS: ocp.args.JsonSave(fingerprints(tree)),
                STATE: ocp.args.PyTreeSave(tree),
                DATASET: ocp.args.JsonSave(dict(dataset)),
                DESCRIPTION: ocp.args.JsonSave(dict(description)),
            },
        )
        with self._writing():
            saved = self._manager.save(int(state.step), args=items)
        if not saved:
            raise ValueError(
                f"{self._manager.directory}: step {int(state.step)} was not saved, since there is "
                f"a checkpoint of step {self.latest_step}"
            )

    def wait(self) -> None:
        """Until everything is written.

        Raises:
          SaveError: writing failed.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def restore(
        self, abstract: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """The state and the data's position of a step, by default the latest.

        Args:
          abstract: shapes, dtypes and shardings; the mesh may be another than the one that saved.
          step: of the checkpoint.

        Raises:
          FileNotFoundError: there is no such checkpoint.
          ValueError: it is damaged, or holds other weights than `abstract`.
        """
        if step is None:
            step = self.latest_step
        if step is None:
            raise FileNotFoundError(f"{self.directory}: there are no checkpoints")
        return restore_state(self.directory / f"{PREFIX}_{step}", abstract)


def checkpoint_path(path: pathlib.Path) -> pathlib.Path:
    """The absolute path of a whole checkpoint: a run's, or one of parameters or adapters alone.

    Raises:
      FileNotFoundError: it is no checkpoint, or not a whole one.
    """
    path = path.absolute()
    missing = [name for name in (STATE, DESCRIPTION) if not (path / name).is_dir()]
    if STATE in missing and any((path / item).is_dir() for item in (PARAMS, ADAPTERS)):
        missing.remove(STATE)
    if missing:
        there = sorted(each.name for each in path.parent.glob(f"{PREFIX}_*"))
        raise FileNotFoundError(
            f"{path}: no whole checkpoint: {' and '.join(missing)} missing; beside it: "
            f"{', '.join(there) or 'no checkpoints'}"
        )
    return path


def latest_checkpoint(path: str | pathlib.Path) -> pathlib.Path:
    """A checkpoint directory itself, or the latest whole checkpoint of a run's directory.

    Raises:
      FileNotFoundError: it is neither.
    """
    path = pathlib.Path(path).absolute()
    if re.fullmatch(rf"{PREFIX}_\d+", path.name) or (path / DESCRIPTION).is_dir():
        return checkpoint_path(path)
    steps = []
    for each in path.glob(f"{PREFIX}_*"):
        number = each.name.removeprefix(f"{PREFIX}_")
        if number.isdigit() and (each / DESCRIPTION).is_dir():
            steps.append(int(number))
    if not steps:
        what = "holds no whole checkpoint_<step>" if path.is_dir() else "is no directory"
        raise FileNotFoundError(f"{path}: no checkpoint and no run: it {what}")
    return checkpoint_path(path / f"{PREFIX}_{max(steps)}")


def find_checkpoint(name: str | pathlib.Path) -> pathlib.Path:
    """A checkpoint by the path of it or of its run, or by the name of one that comes along.

    Args:
      name: a path, or `pretrained:NAME`.

    Raises:
      FileNotFoundError: there is none.
    """
    name = str(name)
    if not name.startswith("pretrained:"):
        return latest_checkpoint(name)
    wanted = name.removeprefix("pretrained:")
    known = sorted(path.name for path in PRETRAINED.glob("*") if any(path.glob("checkpoint_*")))
    if wanted not in known:
        raise FileNotFoundError(
            f"no pretrained model {wanted!r}; there are: {', '.join(known) or 'none'}"
        )
    return latest_checkpoint(PRETRAINED / wanted)


def read_description(checkpoint: pathlib.Path) -> dict[str, Any]:
    """What a checkpoint says about itself, without reading its weights.

    Raises:
      FileNotFoundError: it is no checkpoint, or not a whole one.
      ValueError: it is damaged.
    """
    return _read_json(checkpoint_path(checkpoint), DESCRIPTION)


def restore_state(
    checkpoint: pathlib.Path, abstract: TrainState
) -> tuple[TrainState, dict[str, Any]]:
    """The state and the data's position of a run's checkpoint; see `Checkpoints.restore`."""
    path = checkpoint_path(checkpoint)
    restored = abstract.restore_state(restore_tree(path, abstract.state_dict()))
    return _with_average(path, restored, abstract.ema), _read_json(path, DATASET)


def restore_params(checkpoint: pathlib.Path, abstract: Any, which: str = PARAMS) -> Any:
    """The parameters alone, to start another run from them.

    Args:
      checkpoint: a `checkpoint_<step>` directory.
      abstract: the tree of shapes, dtypes and shardings.
      which: `params`, or `ema` for their average; of frozen ones that is what they are.

    Raises:
      FileNotFoundError: it is no checkpoint, or not a whole one.
      ValueError: it is damaged, holds other weights than `abstract`, or has no average.
    """
    path = checkpoint_path(checkpoint)
    _check_has_params(path)
    check_which(path, which)
    if (path / PARAMS).is_dir():
        return restore_tree(path, abstract, PARAMS)
    params = restore_tree(path, {"target": abstract})["target"]
    if which == EMA:
        averaged = flatten_dict(item_metadata(path, EMA))
        flat = flatten_dict(abstract)
        _check_weights(path, unflatten_dict(averaged), abstract, partly=True)
        wanted = unflatten_dict({name: flat[name] for name in averaged})
        average = restore_tree(path, wanted, EMA)
        params = unflatten_dict({**flatten_dict(params), **flatten_dict(average)})
    return params


def check_which(path: pathlib.Path, which: str) -> None:
    """Refuses parameters that a checkpoint does not have.

    Raises:
      ValueError: `which` is neither `params` nor `ema`, or there is no average.
    """
    if which not in (PARAMS, EMA):
        raise ValueError(f"which parameters: found {which!r}, expected {PARAMS!r} or {EMA!r}")
    if which == EMA and not (path / EMA).is_dir():
        raise ValueError(
            f"{path}: has no average of the parameters (no item {EMA!r}): a run keeps one with "
            "--gin.RunConfig.ema=@EMA(), and an exported checkpoint has one kind of parameters"
        )


def check_params(checkpoint: pathlib.Path, abstract: Any) -> None:
    """Refuses what `restore_params` would refuse for its names and shapes; reads no weights.

    Raises:
      FileNotFoundError: it is no checkpoint, or not a whole one.
      ValueError: it is damaged, or holds other weights than `abstract`.
    """
    path = checkpoint_path(checkpoint)
    _check_has_params(path)
    alone = (path / PARAMS).is_dir()
    metadata = item_metadata(path, PARAMS if alone else STATE)
    _check_weights(path, metadata if alone else metadata.get("target", {}), abstract)


def check_optimizer(checkpoint: pathlib.Path, initializer: TrainStateInitializer) -> None:
    """Refuses a run's checkpoint whose optimizer trained other parameters; reads no weights.

    Raises:
      FileNotFoundError: it is no checkpoint, or not a whole one.
      ValueError: it is damaged, or other parameters are frozen.
    """
    path = checkpoint_path(checkpoint)
    found = item_metadata(path, STATE).get("state", {}).get("param_states", {})
    expected = initializer.abstract.state_dict()["state"]["param_states"]
    check_same_frozen(found, expected, initializer.frozen, str(path))


def item_metadata(path: pathlib.Path, item: str) -> Any:
    """The shapes and dtypes of an item, as a tree.

    Raises:
      ValueError: it is damaged.
    """
    try:
        # Not through a checkpointer: it warns of files that items of a composite never have.
        with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
            return handler.metadata(path / item).tree
    except Exception as error:  # Orbax, TensorStore and JSON have no error in common.
        raise _damaged(path, error) from error


def read_arrays(path: pathlib.Path, item: str, abstract: Mapping[str, Any]) -> Any:
    """The arrays of an item that `abstract` names, unchecked.

    Raises:
      Exception: it is damaged; Orbax, TensorStore and JSON have no error in common.
    """
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(
            path / item,
            args=ocp.args.PyTreeRestore(
                item=abstract,
                restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
                partial_restore=True,
            ),
        )


def restore_tree(path: pathlib.Path, abstract: Mapping[str, Any], item: str = STATE) -> Any:
    """The part of an item that `abstract` names; whole in its top-level keys.

    Raises:
      ValueError: it is damaged, or holds other weights than `abstract`.
    """
    metadata = item_metadata(path, item)
    _check_weights(path, {name: metadata.get(name, {}) for name in abstract}, abstract)
    try:
        restored = read_arrays(path, item, abstract)
    except Exception as error:
        raise _damaged(path, error) from error
    if item == STATE and (path / FINGERPRINTS).is_dir():
        # Arrays that are restored with another dtype have other bits.
        kept = {
            name: value
            for name, value in _read_json(path, FINGERPRINTS).items()
            if _same_dtype(name, metadata, restored)
        }
        if names := changed(restored, kept):
            raise _damaged(path, ValueError(f"other numbers than were saved in {', '.join(names)}"))
    return restored


def _same_dtype(name: str, *trees: Any) -> bool:
    dtypes = []
    for tree in trees:
        for key in name.split("/"):
            tree = tree.get(key) if isinstance(tree, Mapping) else None
        dtypes.append(getattr(tree, "dtype", None))
    return dtypes[0] == dtypes[1]


def _check_has_params(path: pathlib.Path) -> None:
    if ADAPTERS in _read_json(path, DESCRIPTION):
        raise ValueError(
            f"{path}: has adapters alone; merge them into their base first: rt2 convert {path} OUT"
        )


def _with_average(path: pathlib.Path, state: TrainState, abstract: Any) -> TrainState:
    """The state with the checkpoint's average, or one that begins here; None for none."""
    there = (path / EMA).is_dir()
    if abstract is None:
        if there:
            _LOG.warning("%s: its average of the parameters ends, since this run keeps none", path)
        return state
    if there:
        return dataclasses.replace(state, ema=restore_tree(path, abstract, EMA))
    _LOG.warning("%s: has no average of the parameters; this run's begins with it", path)
    params = flatten_dict(state.params)
    copies = {name: jnp.copy(params[name]) for name in flatten_dict(abstract)}
    return dataclasses.replace(state, ema=unflatten_dict(copies))


def _check_weights(
    path: pathlib.Path,
    found: Mapping[str, Any],
    expected: Mapping[str, Any],
    partly: bool = False,
) -> None:
    flat_found, flat_expected = (flatten_dict(tree, sep="/") for tree in (found, expected))
    lines = [] if partly else [f"missing: {n}" for n in flat_expected if n not in flat_found]
    lines += [f"not expected: {name}" for name in flat_found if name not in flat_expected]
    for name, leaf in flat_expected.items():
        if name in flat_found and tuple(flat_found[name].shape) != leaf.shape:
            shape = tuple(flat_found[name].shape)
            lines.append(f"{name}: found shape {shape}, expected {leaf.shape}")
    if lines:
        raise ValueError(
            f"{path}: holds other weights than the model and optimizer configured:\n  "
            + "\n  ".join(lines)
        )


def _read_json(path: pathlib.Path, item: str) -> dict[str, Any]:
    try:
        return json.loads((path / item / "metadata").read_text())
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: pathlib.Path, error: Exception) -> ValueError:
    reason = textwrap.shorten(str(error), 300) or "no reason given"
    return ValueError(
        f"{path}: the checkpoint is damaged ({type(error).__name__}: {reason}); "
        "remove it to go on with an earlier one"
    )
