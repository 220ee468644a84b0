"""Checkpoints of a run: whole or not there, and self-describing."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import textwrap
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from rt2_jax.training.distributed import lost_peer
from rt2_jax.training.exits import LostPeerError
from rt2_jax.training.fingerprints import changed, fingerprints
from rt2_jax.training.freezing import check_same_frozen
from rt2_jax.training.keeping import KeepBest, preservation_policy
from rt2_jax.training.train_state import TrainState, TrainStateInitializer

PREFIX = "checkpoint"
PRETRAINED = pathlib.Path(__file__).parent.parent / "pretrained"
STATE, DATASET, DESCRIPTION, PARAMS = "state", "dataset", "rt2", "params"
FINGERPRINTS = "fingerprints"  # of the arrays; a checkpoint written before it has none


class SaveError(OSError):
    """A checkpoint could not be written; those before it are whole."""


class Checkpoints:
    """The checkpoints of one run: `<directory>/checkpoint_<step>/` with four items.

    `state` is `TrainState.state_dict()`, as T5X writes it; `dataset` is where the data stands, as
    JSON; `rt2` describes what was trained, as JSON; `fingerprints` tell whether numbers have
    changed. A checkpoint is written under another name and renamed when all of it is there. Writing
    goes on in the background.
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
            item_names=(STATE, DATASET, DESCRIPTION, FINGERPRINTS),
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
        items = ocp.args.Composite(
            **{
                FINGERPRINTS: ocp.args.JsonSave(fingerprints(tree)),
                STATE: ocp.args.PyTreeSave(tree),
                DATASET: ocp.args.JsonSave(dict(dataset)),
                DESCRIPTION: ocp.args.JsonSave(dict(description)),
            }
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
        path = checkpoint_path(self.directory / f"{PREFIX}_{step}")
        restored = _restore_tree(path, abstract.state_dict())
        return abstract.restore_state(restored), _read_json(path, DATASET)


def checkpoint_path(path: pathlib.Path) -> pathlib.Path:
    """The absolute path of a whole checkpoint: a run's, or one that holds parameters alone.

    Raises:
      FileNotFoundError: it is no checkpoint, or not a whole one.
    """
    path = path.absolute()
    missing = [name for name in (STATE, DESCRIPTION) if not (path / name).is_dir()]
    if STATE in missing and (path / PARAMS).is_dir():
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


def restore_params(checkpoint: pathlib.Path, abstract: Any) -> Any:
    """The parameters alone, to start another run from them.

    Args:
      checkpoint: a `checkpoint_<step>` directory.
      abstract: the tree of shapes, dtypes and shardings.

    Raises:
      FileNotFoundError: it is no checkpoint, or not a whole one.
      ValueError: it is damaged, or holds other weights than `abstract`.
    """
    path = checkpoint_path(checkpoint)
    if (path / PARAMS).is_dir():
        return _restore_tree(path, abstract, PARAMS)
    return _restore_tree(path, {"target": abstract})["target"]


def check_params(checkpoint: pathlib.Path, abstract: Any) -> None:
    """Refuses what `restore_params` would refuse for its names and shapes; reads no weights.

    Raises:
      FileNotFoundError: it is no checkpoint, or not a whole one.
      ValueError: it is damaged, or holds other weights than `abstract`.
    """
    path = checkpoint_path(checkpoint)
    alone = (path / PARAMS).is_dir()
    metadata = _metadata(path, PARAMS if alone else STATE)
    _check_weights(path, metadata if alone else metadata.get("target", {}), abstract)


def check_optimizer(checkpoint: pathlib.Path, initializer: TrainStateInitializer) -> None:
    """Refuses a run's checkpoint whose optimizer trained other parameters; reads no weights.

    Raises:
      FileNotFoundError: it is no checkpoint, or not a whole one.
      ValueError: it is damaged, or other parameters are frozen.
    """
    path = checkpoint_path(checkpoint)
    found = _metadata(path, STATE).get("state", {}).get("param_states", {})
    expected = initializer.abstract.state_dict()["state"]["param_states"]
    check_same_frozen(found, expected, initializer.frozen, str(path))


def export_params(
    checkpoint: pathlib.Path, directory: pathlib.Path, dtype: str | None = None
) -> pathlib.Path:
    """Writes a checkpoint of parameters and description alone: all that serving reads.

    Args:
      checkpoint: a `checkpoint_<step>` directory.
      directory: gets a directory of the same name.
      dtype: of the parameters in the file, e.g. `bfloat16`; None keeps them as they are.

    Returns:
      The new checkpoint's path.

    Raises:
      FileExistsError: it is there already.
      FileNotFoundError: there is no such checkpoint.
      ValueError: it is damaged.
    """
    source = checkpoint_path(checkpoint)
    target = directory.absolute() / source.name
    if target.exists():
        raise FileExistsError(f"{target} exists already; nothing was written")
    item = PARAMS if (source / PARAMS).is_dir() else STATE
    metadata = _metadata(source, item)
    metadata = metadata if item == PARAMS else metadata["target"]
    # On one device, whichever mesh saved it.
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), metadata
    )
    params = restore_params(source, abstract)
    if dtype is not None:
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(
            target,
            ocp.args.Composite(
                **{
                    PARAMS: ocp.args.PyTreeSave(params),
                    DESCRIPTION: ocp.args.JsonSave(read_description(source)),
                }
            ),
        )
    # Orbax writes the whole path there; what is given away names no machine's folders.
    for marker in target.rglob("commit_success.txt"):
        marker.write_text(f"Checkpoint commit was successful to {target.name}")
    return target


def _metadata(path: pathlib.Path, item: str) -> Any:
    try:
        # Not through a checkpointer: it warns of files that items of a composite never have.
        with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
            return handler.metadata(path / item).tree
    except Exception as error:  # Orbax, TensorStore and JSON have no error in common.
        raise _damaged(path, error) from error


def _restore_tree(path: pathlib.Path, abstract: Mapping[str, Any], item: str = STATE) -> Any:
    """The part of an item that `abstract` names; whole in its top-level keys."""
    metadata = _metadata(path, item)
    _check_weights(path, {name: metadata.get(name, {}) for name in abstract}, abstract)
    with ocp.PyTreeCheckpointer() as checkpointer:
        try:
            restored = checkpointer.restore(
                path / item,
                args=ocp.args.PyTreeRestore(
                    item=abstract,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
                    partial_restore=True,
                ),
            )
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


def _check_weights(
    path: pathlib.Path, found: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    flat_found, flat_expected = (flatten_dict(tree, sep="/") for tree in (found, expected))
    lines = [f"missing: {name}" for name in flat_expected if name not in flat_found]
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
