"""Which array of a published file is which parameter of a tree, and the way from one to the other.

A map is a list of `Entry`, made from a model's configuration. Reading is strict: an array that the
map does not know, one that is missing and one of another shape are errors, all in one message.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rt2_jax.models.layer_stack import LAYER_AXIS, STACK

LAYOUTS = ("same", "transposed", "convolution", "depthwise", "one_row")
_LISTED = 20


@dataclasses.dataclass(frozen=True)
class Entry:
    """One array of a published file.

    Attributes:
      name: of the array in the file.
      shape: there.
      path: of the parameter in our tree, without the layer's number; empty: the array is known, but
        nothing that the model computes depends on it. The file may then lack it.
      layout: how the parameter lies in the file. `same`; `transposed`, a linear map [out, in];
        `convolution`, [out, in, rows, columns], ours [rows * columns * in, out]; `depthwise`,
        [channels, 1, rows, columns], ours [rows * columns, channels]; `one_row`, with a first axis
        of length 1.
      layer: its layer, where there are several.
      copies: other names under which a file may hold the same array once more.
    """

    name: str
    shape: tuple[int, ...]
    path: tuple[str, ...] = ()
    layout: str = "same"
    layer: int | None = None
    copies: tuple[str, ...] = ()

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        """The array of the file as our parameter."""
        if self.layout == "transposed":
            return array.T
        if self.layout == "convolution":
            return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
        if self.layout == "depthwise":
            return array.reshape(array.shape[0], -1).T
        return array[0] if self.layout == "one_row" else array

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        """Our parameter as the array of the file."""
        if self.layout == "convolution":
            out, channels, rows, columns = self.shape
            return array.reshape(rows, columns, channels, out).transpose(3, 2, 0, 1)
        if self.layout in ("transposed", "depthwise"):
            array = array.T
        return array.reshape(self.shape)


def under(entries: Iterable[Entry], name: str = "", path: Sequence[str] = ()) -> tuple[Entry, ...]:
    """The same entries with `name` before every name and `path` before every path."""
    return tuple(
        dataclasses.replace(
            entry,
            name=name + entry.name,
            path=(*path, *entry.path) if entry.path else (),
            copies=tuple(name + copy for copy in entry.copies),
        )
        for entry in entries
    )


def first_rows(arrays: Mapping[str, np.ndarray], name: str, rows: int) -> dict[str, np.ndarray]:
    """The same arrays with the first `rows` rows of one: of an embedding that was made longer.

    Raises:
      KeyError, ValueError: there is no such array, or it has fewer rows.
    """
    if name not in arrays:
        raise KeyError(f"{name}: no such array; there are {', '.join(sorted(arrays)[:5])}, ...")
    if len(arrays[name]) < rows:
        raise ValueError(f"{name}: found {len(arrays[name])} rows, expected {rows} or more")
    return {**arrays, name: arrays[name][:rows]}


def read_parameters(
    entries: Sequence[Entry],
    arrays: Mapping[str, np.ndarray],
    *,
    scan_layers: bool = True,
    leave_out: Sequence[str] = (),
) -> dict[str, Any]:
    """The parameter tree of a model, float32, from the arrays of a published file.

    Args:
      entries: the model's map.
      arrays: by name, of any float dtype.
      scan_layers: as in the model's configuration.
      leave_out: beginnings of names that are left out on purpose, such as "head." for a head that
        the model doesn't have.

    Raises:
      ValueError: names are missing or unknown, arrays have other shapes, copies differ, or
        `leave_out` leaves out nothing or what the model needs. All of it stands in the message.
    """
    _check(entries, arrays, leave_out)
    depths: dict[tuple[str, ...], int] = {}
    for entry in entries:
        if entry.layer is not None:
            depths[entry.path] = max(depths.get(entry.path, 0), entry.layer + 1)
    tree: dict[tuple[str, ...], np.ndarray] = {}
    for entry in entries:
        if not entry.path:
            continue
        array = entry.to_ours(np.asarray(arrays[entry.name], np.float32))
        where = _numbered(entry, scan_layers)
        if where is not None or entry.layer is None:
            tree[where or entry.path] = np.ascontiguousarray(array)
            continue
        if entry.path not in tree:
            shape = (*array.shape[:LAYER_AXIS], depths[entry.path], *array.shape[LAYER_AXIS:])
            tree[entry.path] = np.empty(shape, np.float32)
        tree[entry.path][_of_layer(entry.layer)] = array
    return unflatten_dict(tree)


def write_parameters(
    entries: Sequence[Entry], params: Mapping[str, Any], *, scan_layers: bool = True
) -> dict[str, np.ndarray]:
    """The arrays of a published file from a parameter tree: `read_parameters` the other way.

    Raises:
      ValueError: the tree lacks parameters or has others, or their shapes are not the map's.
    """
    flat = flatten_dict(params)
    arrays, problems, seen = {}, [], set()
    for entry in entries:
        if not entry.path:
            continue
        where = _numbered(entry, scan_layers) or entry.path
        seen.add(where)
        if where not in flat:
            problems.append(f"missing: {'/'.join(where)} for {entry.name}")
            continue
        array = np.asarray(flat[where])
        if where == entry.path and entry.layer is not None:
            array = array[_of_layer(entry.layer)]
        if array.size != np.prod(entry.shape, dtype=int):
            problems.append(
                f"shape: {'/'.join(where)} {array.shape} for {entry.name} {entry.shape}"
            )
            continue
        arrays[entry.name] = np.ascontiguousarray(entry.to_theirs(array))
    problems += [f"unknown: {'/'.join(path)}" for path in sorted(set(flat) - seen)]
    _raise("parameters", problems, "write a tree of the configuration that the map was made for")
    return arrays


def _check(
    entries: Sequence[Entry], arrays: Mapping[str, np.ndarray], leave_out: Sequence[str]
) -> None:
    problems: list[str] = []
    known: set[str] = set()
    for entry in entries:
        known.update((entry.name, *entry.copies))
        if entry.name not in arrays:
            if entry.path:
                problems.append(f"missing: {entry.name} {entry.shape}")
            continue
        found = tuple(arrays[entry.name].shape)
        if found != entry.shape:
            problems.append(f"shape: {entry.name}: found {found}, expected {entry.shape}")
            continue
        problems += [
            f"not equal: {copy} is to be a copy of {entry.name}"
            for copy in entry.copies
            if copy in arrays and not np.array_equal(arrays[copy], arrays[entry.name])
        ]
    left = tuple(leave_out)
    unknown = sorted(name for name in arrays if name not in known and not name.startswith(left))
    problems += [f"unknown: {name} {tuple(arrays[name].shape)}" for name in unknown]
    for beginning in left:
        if not any(name.startswith(beginning) for name in arrays):
            problems.append(f"leave_out: no name begins with {beginning!r}")
        wanted = [name for name in sorted(known) if name.startswith(beginning)]
        problems += [f"leave_out: {beginning!r} covers {name}, which is read" for name in wanted]
    _raise(
        "weights",
        problems,
        "choose the configuration that they were made with, or name in leave_out what to leave out",
    )


def _raise(what: str, problems: Sequence[str], advice: str) -> None:
    if not problems:
        return
    lines = [*problems[:_LISTED]]
    if len(problems) > _LISTED:
        lines.append(f"and {len(problems) - _LISTED} more")
    raise ValueError(
        f"{what}: {len(problems)} do not fit the map; {advice}:\n  " + "\n  ".join(lines)
    )


def _numbered(entry: Entry, scan_layers: bool) -> tuple[str, ...] | None:
    """The path of a layer that is written out; None for what is stacked or has no layer."""
    if entry.layer is None or scan_layers or STACK not in entry.path:
        return None
    at = entry.path.index(STACK)
    return (*entry.path[:at], f"{STACK}_{entry.layer}", *entry.path[at + 1 :])


def _of_layer(layer: int) -> tuple[Any, ...]:
    return (*(slice(None),) * LAYER_AXIS, layer)
