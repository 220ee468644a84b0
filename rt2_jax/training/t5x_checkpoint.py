"""Checkpoints in T5X's layouts: its own of before 2023 (version 3), and Orbax's.

The first is a file `checkpoint`, a msgpack tree whose large leaves are TensorStore specifications
of zarr arrays beside it; every public T5 1.1, mT5, UL2 and FLAN checkpoint is one. Only msgpack and
zarr are read: nothing is unpickled, and gin files beside the weights are never opened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from flax import serialization
from flax.traverse_util import flatten_dict, unflatten_dict

from rt2_jax.training.checkpoints import DESCRIPTION, FINGERPRINTS, PARAMS, read_arrays

_LEGACY, _STATE = "checkpoint", "state"


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """The weights of a checkpoint, not read yet.

    Attributes:
      path: of the checkpoint.
      weights: shape and dtype by name, as `target/decoder/...` and `state/param_states/...`.
      read: (name -> shape, dtype and sharding wanted) -> arrays by name; each process reads what
        its devices hold.
    """

    path: pathlib.Path
    weights: Mapping[str, jax.ShapeDtypeStruct]
    read: Callable[[Mapping[str, jax.ShapeDtypeStruct]], dict[str, jax.Array]]


def find_t5x_checkpoint(path: str | pathlib.Path) -> pathlib.Path | None:
    """A checkpoint in one of T5X's layouts, or the latest of a folder; None if there is none.

    Checkpoints of this project, which say what was trained, are not meant: see `find_checkpoint`.
    """
    path = pathlib.Path(path).absolute()
    if _is_t5x(path):
        return path
    steps = {}
    for each in path.glob("checkpoint_*"):
        number = each.name.removeprefix("checkpoint_")
        if number.isdigit() and each.is_dir():
            steps[int(number)] = each
    latest = steps[max(steps)] if steps else None
    return latest if latest is not None and _is_t5x(latest) else None


def open_weights(path: pathlib.Path) -> StoredWeights:
    """The weights of a checkpoint with T5X's tree.

    T5X's own, in both layouts, or this project's, of parameters alone too.

    Raises:
      FileNotFoundError: it is none.
      ValueError: it is damaged.
    """
    if (path / _LEGACY).is_file():
        return _open_legacy(path)
    if (path / _STATE).is_dir():
        return _open_orbax(path, _STATE, "")
    if (path / PARAMS).is_dir():
        return _open_orbax(path, PARAMS, "target/")
    raise FileNotFoundError(
        f"{path}: no checkpoint in T5X's layout: neither a file {_LEGACY!r} nor a folder {_STATE!r}"
    )


def _is_t5x(path: pathlib.Path) -> bool:
    if (path / _LEGACY).is_file():
        return True
    return (path / _STATE).is_dir() and not _is_ours(path)


def _is_ours(path: pathlib.Path) -> bool:
    """Whether this project wrote it, also where what says so has gone: then it is not whole."""
    listed = path / "_CHECKPOINT_METADATA"
    if listed.is_file() and f'"{DESCRIPTION}"' in listed.read_text(errors="replace"):
        return True
    return any((path / name).exists() for name in (DESCRIPTION, FINGERPRINTS))


def _open_legacy(path: pathlib.Path) -> StoredWeights:
    try:
        tree = serialization.msgpack_restore((path / _LEGACY).read_bytes())
        version, tree = tree["version"], tree["optimizer"]
    except Exception as error:  # msgpack, flax and dictionaries have no error in common.
        raise _damaged(path, error) from error
    if version != 3:
        raise ValueError(f"{path}: found T5X's layout of version {version!r}, expected 3")
    leaves: dict[str, Any] = {}
    for keys, leaf in flatten_dict(tree, is_leaf=lambda _, each: "driver" in each).items():
        name = "/".join(map(str, keys))
        leaves[name] = _open_array(path, name, leaf) if isinstance(leaf, Mapping) else leaf
    weights = {
        name: jax.ShapeDtypeStruct(np.shape(leaf), _dtype(leaf)) for name, leaf in leaves.items()
    }

    def read(wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        return {
            name: _read_parts(path, name, leaves[name], abstract)
            for name, abstract in wanted.items()
        }

    return StoredWeights(path, weights, read)


def _open_array(path: pathlib.Path, name: str, spec: Mapping[str, Any]) -> Any:
    """The zarr array of a specification, which may only be one below the checkpoint itself."""
    store = spec.get("kvstore", {})
    folder = str(store.get("path", "") if isinstance(store, Mapping) else "").strip("/")
    if spec.get("driver") != "zarr" or not folder or ".." in pathlib.PurePath(folder).parts:
        raise ValueError(
            f"{path}: {name}: found the specification {dict(spec)!r}, expected a zarr array in a "
            "folder of the checkpoint"
        )
    # Public checkpoints name the bucket that they were written to; the array is beside the file.
    place = path / pathlib.PurePath(folder).name
    try:
        return tensorstore.open(
            {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{place}/"}},
            open=True,
            read=True,
        ).result()
    except Exception as error:
        raise _damaged(path, error) from error


def _read_parts(
    path: pathlib.Path, name: str, stored: Any, abstract: jax.ShapeDtypeStruct
) -> jax.Array:
    def part(index: Any) -> np.ndarray:
        if isinstance(stored, tensorstore.TensorStore):
            return np.asarray(stored[index].read().result()).astype(abstract.dtype)
        return np.asarray(stored)[index].astype(abstract.dtype)

    try:
        return jax.make_array_from_callback(abstract.shape, abstract.sharding, part)
    except Exception as error:
        raise _damaged(path, error, name) from error


def _open_orbax(path: pathlib.Path, item: str, prefix: str) -> StoredWeights:
    try:
        with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
            tree = handler.metadata(path / item).tree
    except Exception as error:
        raise _damaged(path, error) from error
    weights = {
        prefix + name: jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype)
        for name, leaf in flatten_dict(tree, sep="/").items()
        if hasattr(leaf, "shape")
    }

    def read(wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        flat = {name.removeprefix(prefix): leaf for name, leaf in wanted.items()}
        try:
            found = read_arrays(path, item, unflatten_dict(flat, sep="/"))
        except Exception as error:
            raise _damaged(path, error) from error
        return {prefix + name: leaf for name, leaf in flatten_dict(found, sep="/").items()}

    return StoredWeights(path, weights, read)


def _dtype(leaf: Any) -> np.dtype:
    if isinstance(leaf, tensorstore.TensorStore):
        return np.dtype(leaf.dtype.numpy_dtype)
    return np.asarray(leaf).dtype


def _damaged(path: pathlib.Path, error: Exception, name: str = "") -> ValueError:
    reason = re.sub(r"\s+", " ", str(error))[:300]
    where = f"{path}: {name}" if name else str(path)
    return ValueError(f"{where}: the checkpoint is damaged ({type(error).__name__}: {reason})")
