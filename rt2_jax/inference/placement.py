"""A policy on several devices: which of them hold what, and where inputs and answers lie."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from rt2_jax.training.description import RunDescription
from rt2_jax.training.mesh import MeshShape, make_mesh
from rt2_jax.training.partitioning import Partitioner, logical_axes


class Placement:
    """Weights divided over a mesh; pictures and words go to all of it, whole.

    The axes are those of training: `tensor` divides every layer,
    which makes an answer faster and what a device holds smaller; `fsdp` divides parameters that are
    gathered each time they are used; it and `data` divide a batch that can be divided so.

    Args:
      shape: with sizes whose product is at most the number of devices; -1 for what is left.
      devices: by default all; the first ones of them are used.

    Raises:
      ValueError: there are fewer devices, or they cannot be divided so.
    """

    def __init__(self, shape: MeshShape, devices: Sequence[jax.Device] | None = None) -> None:
        devices = jax.devices() if devices is None else devices
        sizes = dataclasses.astuple(shape)
        if -1 not in sizes and 0 < math.prod(sizes) < len(devices):
            devices = devices[: math.prod(sizes)]
        if len({device.process_index for device in devices}) < jax.process_count():
            raise ValueError(
                f"mesh: found {sizes} for {jax.device_count()} devices of {jax.process_count()} "
                "processes, so that some would hold nothing; make them as many as the devices"
            )
        self._partitioner = Partitioner(make_mesh(shape, devices))
        self.devices: tuple[jax.Device, ...] = tuple(self._partitioner.mesh.devices.flat)

    @property
    def whole(self) -> NamedSharding:
        """Of what every device has all of."""
        return self._partitioner.replicated

    def active(self) -> contextlib.AbstractContextManager[None]:
        """Within it, models are traced for this mesh."""
        return self._partitioner.active()

    def abstract_params(self, description: RunDescription) -> Any:
        """Shapes, dtypes and shardings of a checkpoint's parameters.

        Raises:
          ValueError: a dimension cannot be divided so; the message names the parameter.
        """
        shapes = description.inputs.batch_shapes(1)
        variables = jax.eval_shape(
            lambda: description.make_model().get_initial_variables(jax.random.key(0), shapes)
        )
        params = variables["params"]
        shardings = self._partitioner.parameter_shardings(
            params, logical_axes(variables["params_axes"])
        )
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            params,
            shardings,
        )

    def abstract(self, inputs: Any) -> Any:
        """Shapes of inputs that every device gets as a whole; arrays of a mesh stay where they are.

        Args:
          inputs: a tree of arrays.
        """

        def shape(leaf: Any) -> Any:
            if isinstance(leaf, jax.Array):
                return leaf
            leaf = np.asarray(leaf)
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.whole)

        return jax.tree.map(shape, inputs)


def read_mesh(text: str) -> MeshShape:
    """The mesh of `tensor=4` or `fsdp=2,tensor=2`; axes that are not named are not divided.

    Raises:
      ValueError: it is written otherwise.
    """
    names = [field.name for field in dataclasses.fields(MeshShape)]
    sizes: dict[str, int] = dict.fromkeys(names, 1)
    for word in text.split(","):
        name, _, size = word.strip().partition("=")
        try:
            number = int(size)
        except ValueError:
            number = 0
        if name not in names or not (number > 0 or number == -1):
            raise ValueError(
                f"--mesh: found {word!r} in {text!r}, expected numbers of devices such as tensor=4 "
                f"or fsdp=2,tensor=2, with the axes {', '.join(names)}, and -1 for what is left"
            )
        sizes[name] = number
    return MeshShape(**sizes)
