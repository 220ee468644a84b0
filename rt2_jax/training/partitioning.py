"""Which device holds what: logical axis rules, and the shardings that follow from them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from flax import linen as nn
from flax.linen.partitioning import get_axis_names
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

LogicalAxisRules = tuple[tuple[str, str | tuple[str, ...] | None], ...]

LOGICAL_AXIS_RULES: LogicalAxisRules = (
    # In this order: with `data` before `fsdp`, XLA (jax 0.10.2, on CPU) computes wrong activations
    # when `fsdp` and `tensor` are both divided. The mesh has the same order, so that the rows of a
    # process stay together.
    ("batch", ("fsdp", "data")),
    ("vocab", "tensor"),
    ("mlp", "tensor"),
    ("heads", "tensor"),
    ("joined_kv", "tensor"),
    # Activations have a batch, which takes `fsdp` first; so this divides parameters only.
    ("embed", "fsdp"),
    ("kv", None),
    ("length", None),
    ("layers", None),
    ("relpos_buckets", None),
    ("lora_rank", None),
)
"""Logical axis -> mesh axes; the first that fits wins, and no mesh axis is used twice."""


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
    def batch_parts(self) -> int:
        """Into how many parts a batch is divided."""
        return _parts(self.mesh, self.batch_sharding.spec[0])

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
        """The global batch, of which this process has the rows given.

        Raises:
          ValueError: the mesh wants other rows here, as where a model replica spans hosts.
        """
        hosts = jax.process_count()
        return {
            name: jax.make_array_from_process_local_data(
                self.batch_sharding, value, (hosts * value.shape[0], *value.shape[1:])
            )
            for name, value in batch.items()
        }

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Within it, the model's logical constraints are those of this mesh and these rules."""
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(self.rules):
            yield

    def _spec(self, names: tuple[str, ...]) -> PartitionSpec:
        return nn.logical_to_mesh_axes(names, self.rules) or PartitionSpec()


def logical_axes(params_axes: Mapping[str, Any]) -> Any:
    """A model's `params_axes` -> the tree of its parameters with tuples of logical axis names."""
    specs = get_axis_names(params_axes).unfreeze()
    return jax.tree.map(tuple, specs, is_leaf=lambda x: isinstance(x, PartitionSpec))


def _parts(mesh: Mesh, axes: str | tuple[str, ...] | None) -> int:
    names = (axes,) if isinstance(axes, str) else axes or ()
    return math.prod(mesh.shape[name] for name in names)
