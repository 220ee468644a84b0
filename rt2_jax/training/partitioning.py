"""Which device holds what: logical axis rules, and the shardings that follow from them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.linen.partitioning import get_axis_names
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rt2_jax.training.data_layout import DataLayout, parts_held
from rt2_jax.training.mesh import MESH_AXES

LogicalAxisRules = tuple[tuple[str, str | tuple[str, ...] | None], ...]

LOGICAL_AXIS_RULES: LogicalAxisRules = (
    # In this order: with `data` before `fsdp`, XLA (jax 0.10.2, on CPU) computes wrong activations
    # when `fsdp` and `tensor` are both divided. The mesh has the same order.
    ("batch", ("replica", "fsdp", "data")),
    ("vocab", "tensor"),
    ("mlp", "tensor"),
    ("heads", "tensor"),
    ("joined_kv", "tensor"),
    # Activations have a batch, which takes `fsdp` first; so this divides parameters only. Replicas
    # hold the same parts: parameters are gathered inside one, and gradients are added up over all.
    ("embed", "fsdp"),
    ("kv", None),
    ("length", "sequence"),
    # Of the residual stream between blocks.
    ("residual_length", "sequence"),
    ("layers", None),
    ("relpos_buckets", None),
    ("lora_rank", None),
)
"""Logical axis -> mesh axes; the first that fits wins, and no mesh axis is used twice."""

SEQUENCE_PARALLEL: LogicalAxisRules = (("residual_length", ("sequence", "tensor")),)


def logical_axis_rules(
    additional: LogicalAxisRules = (), sequence_parallel: bool = False
) -> LogicalAxisRules:
    """The rules of a run: `additional` come before the others, so that they win.

    Args:
      additional: pairs of a logical axis and the mesh axes that divide it; None for none.
      sequence_parallel: the residual stream is divided along its length by `tensor` too, so that
        norms are not computed by all of them (Korthikanti et al. 2022).

    Raises:
      ValueError: no pair, or a name that is no axis.
    """
    known = sorted({name for name, _ in LOGICAL_AXIS_RULES})
    for rule in additional:
        if not isinstance(rule, tuple | list) or len(rule) != 2:
            raise ValueError(
                f"logical_axis_rules: found {rule!r}, expected pairs such as ('embed', 'fsdp')"
            )
        name, axes = rule
        if name not in known:
            raise ValueError(
                f"logical_axis_rules: found the logical axis {name!r}, expected one of "
                f"{', '.join(known)}"
            )
        for axis in (axes,) if isinstance(axes, str) else axes or ():
            if axis not in MESH_AXES:
                raise ValueError(
                    f"logical_axis_rules: {name!r}: found the mesh axis {axis!r}, expected one of "
                    f"{', '.join(MESH_AXES)}, or None"
                )
    before = tuple(
        (name, tuple(axes) if isinstance(axes, list) else axes) for name, axes in additional
    )
    return before + (SEQUENCE_PARALLEL if sequence_parallel else ()) + LOGICAL_AXIS_RULES


@dataclasses.dataclass(frozen=True)
class Partitioner:
    """A mesh and the rules that lay arrays out on it."""

    mesh: Mesh
    rules: LogicalAxisRules = LOGICAL_AXIS_RULES

    @property
    def batch_sharding(self) -> NamedSharding:
        """Of every feature of a batch: rows are divided, all else is whole."""
        return NamedSharding(self.mesh, self._spec(("batch",)))

    @property
    def replicated(self) -> NamedSharding:
        """Everything on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def compiler_options(self) -> dict[str, str]:
        """XLA's, of programs on this mesh.

        On CPUs LLVM's first level: it compiles faster, and the code is as fast with the same
        results (docs/measurements.md).
        """
        on_cpus = self.mesh.devices.flat[0].platform == "cpu"
        return {"xla_backend_optimization_level": "1"} if on_cpus else {}

    @property
    def batch_parts(self) -> int:
        """Into how many parts a batch is divided."""
        return _parts(self.mesh, self.batch_sharding.spec[0])

    def data_layout(self, global_batch_size: int) -> DataLayout:
        """Which rows of a global batch this process reads.

        Raises:
          ValueError: the rows cannot be divided so.
        """
        return DataLayout.of(self.batch_sharding, global_batch_size)

    def parameter_shardings(self, params: Mapping[str, Any], axes: Mapping[str, Any]) -> Any:
        """A NamedSharding for every parameter.

        Args:
          params: the tree, of arrays or of shapes.
          axes: the same tree of logical axis names (`logical_axes`).

        Raises:
          KeyError: a logical axis without a rule.
          ValueError: a dimension that cannot be divided so.
        """
        known = {name for name, _ in self.rules}

        def sharding(path: Any, leaf: Any, names: tuple[str, ...]) -> NamedSharding:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            unknown = sorted(set(names) - known)
            if unknown:
                raise KeyError(
                    f"{name}: no rule for the logical axes {unknown}; there are rules for "
                    f"{sorted(known)}"
                )
            spec = self._spec(names)
            for axis, size, mesh_axes in zip(names, leaf.shape, spec, strict=True):
                if size % _parts(self.mesh, mesh_axes):
                    raise ValueError(
                        f"{name}: its axis {axis!r} of {size} cannot be divided into "
                        f"{_parts(self.mesh, mesh_axes)} parts by mesh axis {mesh_axes!r}; choose "
                        "another mesh or another rule"
                    )
            return NamedSharding(self.mesh, spec)

        return jax.tree_util.tree_map_with_path(sharding, params, axes)

    def optimizer_shardings(self, state: Any, params: Any, parameter_shardings: Any) -> Any:
        """A NamedSharding for every array of an optimizer's state.

        What has a parameter's name and shape lies as the parameter does; the rest, counters and
        Adafactor's rows and columns, is small and on every device.
        """
        flat_params, flat_shardings = flatten_dict(params), flatten_dict(parameter_shardings)

        def sharding(path: Any, leaf: Any) -> NamedSharding:
            keys = tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
            for begin in range(len(keys)):
                for end in range(len(keys), begin, -1):
                    found = flat_params.get(keys[begin:end])
                    if found is not None:
                        same = found.shape == leaf.shape
                        return flat_shardings[keys[begin:end]] if same else self.replicated
            return self.replicated

        return jax.tree_util.tree_map_with_path(sharding, state)

    def to_devices(self, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The global batch, of which this process gives the rows of its `data_layout`.

        Raises:
          ValueError: they are more or fewer rows than this process has.
        """
        here, parts = parts_held(self.batch_sharding)

        def to_devices(name: str, value: np.ndarray) -> jax.Array:
            if len(value) % here:
                raise ValueError(
                    f"batch: {name}: found {len(value)} rows, expected a multiple of {here}, the "
                    f"parts of the batch that this process holds on mesh {dict(self.mesh.shape)}"
                )
            shape = (len(value) // here * parts, *value.shape[1:])
            rows = self.data_layout(shape[0]).rows

            def part(index: tuple[slice, ...] | None) -> np.ndarray:
                assert index is not None
                begin, end, _ = index[0].indices(shape[0])
                first = int(np.searchsorted(rows, begin))
                return value[first : first + end - begin]

            return jax.make_array_from_callback(shape, self.batch_sharding, part)

        return {name: to_devices(name, value) for name, value in batch.items()}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Within it, the model's logical constraints are those of this mesh and these rules."""
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(self._present_rules):
            yield

    @property
    def _present_rules(self) -> LogicalAxisRules:
        """The rules without axes that this mesh does not have."""

        def present(axes: str | tuple[str, ...] | None) -> tuple[str, ...] | None:
            names = (axes,) if isinstance(axes, str) else axes or ()
            return tuple(name for name in names if name in self.mesh.shape) or None

        return tuple((name, present(axes)) for name, axes in self.rules)

    def _spec(self, names: tuple[str, ...]) -> PartitionSpec:
        return nn.logical_to_mesh_axes(names, self._present_rules) or PartitionSpec()


def logical_axes(params_axes: Mapping[str, Any]) -> Any:
    """A model's `params_axes` -> the tree of its parameters with tuples of logical axis names."""
    specs = get_axis_names(params_axes).unfreeze()
    return jax.tree.map(tuple, specs, is_leaf=lambda x: isinstance(x, PartitionSpec))


def _parts(mesh: Mesh, axes: str | tuple[str, ...] | None) -> int:
    names = (axes,) if isinstance(axes, str) else axes or ()
    return math.prod(mesh.shape[name] for name in names)
