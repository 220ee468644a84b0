"""The mesh of devices, by name: `replica`, `fsdp`, `data`, `sequence`, `tensor`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

# `fsdp` before `data`, as in the rule of `batch`: with `data` first, XLA (jax 0.10.2, on CPU)
# computes wrong activations when `fsdp` and `tensor` are both divided.
MESH_AXES = ("replica", "fsdp", "data", "sequence", "tensor")

# The last moves the most bytes and gets the nearest neighbours (what `mesh_utils` wants, too).
_BY_TRAFFIC = ("replica", "data", "fsdp", "sequence", "tensor")

# They exchange nothing but gradients, once a step: a data-centre network is fast enough.
_BETWEEN_SLICES = ("replica", "data")


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """How many devices along each axis; -1, at most once, is what the others leave.

    Attributes:
      replica: copies of all that the axes below make, each with its part of the batch. They meet
        only to add up gradients, so that slices of TPUs can be joined by a data-centre network.
      data: copies of the model, each with its part of the batch.
      fsdp: parts of the parameters; each also has its part of the batch (ZeRO-3, Rajbhandari et
        al. 2020).
      tensor: parts of every layer, with the same examples (Megatron, Shoeybi et al. 2019).
      sequence: parts of the length of every example, with the whole of each layer.
    """

    replica: int = 1
    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    sequence: int = 1

    def resolve(self, device_count: int) -> MeshShape:
        """The same without -1.

        Raises:
          ValueError: the devices cannot be divided so.
        """
        sizes = dataclasses.asdict(self)
        known = 1
        for size in sizes.values():
            known *= size if size > 0 else 1
        open_axes = [name for name, size in sizes.items() if size == -1]
        whole = all(size > 0 or size == -1 for size in sizes.values()) and len(open_axes) < 2
        if whole and open_axes and device_count % known == 0:
            return dataclasses.replace(self, **{open_axes[0]: device_count // known})
        if whole and not open_axes and known == device_count:
            return self
        raise ValueError(
            f"mesh: found {sizes} for {device_count} devices; expected positive sizes whose "
            f"product is {device_count}, with at most one -1 for what the others leave"
        )


def make_mesh(shape: MeshShape, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh over the devices, by default all, placed by `place_devices`.

    Raises:
      ValueError: the devices cannot be divided so.
    """
    devices = jax.devices() if devices is None else devices
    sizes = dataclasses.asdict(shape.resolve(len(devices)))
    return Mesh(
        place_devices(sizes, devices), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES)
    )


def place_devices(sizes: Mapping[str, int], devices: Sequence[Any]) -> np.ndarray:
    """Which device stands where in the mesh: an array with the axes `MESH_AXES`.

    In a slice of TPUs the axes follow the torus, `tensor` along its nearest neighbours. Several
    slices are divided by `replica`, and what it leaves of them by `data`; no other axis crosses the
    network between slices. Devices of other platforms stand in the order of their processes: a
    replica is a group of whole processes, and `tensor`, `sequence` and `fsdp`, in this order, stay
    in one process if they fit.

    Raises:
      ValueError: an axis would cross slices, or a replica would hold parts of processes.
    """
    if devices[0].platform != "tpu":
        return _by_process(sizes, devices)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    between = _between_slices(sizes, slices)
    inside = [sizes[name] // between[name] for name in _BY_TRAFFIC]
    if slices == 1:
        placed = mesh_utils.create_device_mesh(
            inside, list(devices), allow_split_physical_axes=True
        )
    else:
        placed = mesh_utils.create_hybrid_device_mesh(
            inside,
            [between[name] for name in _BY_TRAFFIC],
            list(devices),
            allow_split_physical_axes=True,
        )
    return _in_order_of_mesh(placed)


def _in_order_of_mesh(placed: np.ndarray) -> np.ndarray:
    return placed.transpose([_BY_TRAFFIC.index(name) for name in MESH_AXES])


def _between_slices(sizes: Mapping[str, int], slices: int) -> dict[str, int]:
    """Into how many parts each axis divides the slices."""
    between, left = dict.fromkeys(sizes, 1), slices
    for name in _BETWEEN_SLICES:
        between[name] = math.gcd(sizes[name], left)
        left //= between[name]
    if left > 1:
        raise ValueError(
            f"mesh: found {dict(sizes)} for {slices} slices of TPUs, so that an axis other than "
            f"{' and '.join(_BETWEEN_SLICES)} would cross the network between them; make "
            f"MeshShape.replica a multiple of {slices}"
        )
    return between


def _by_process(sizes: Mapping[str, int], devices: Sequence[Any]) -> np.ndarray:
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    processes = len({device.process_index for device in devices})
    replicas = sizes["replica"]
    if processes % replicas and replicas % processes:
        raise ValueError(
            f"mesh: found replica {replicas} for {processes} processes, so that a replica would "
            "hold parts of a process; expected a divisor or a multiple of their number"
        )
    placed = np.empty(len(ordered), dtype=object)
    placed[:] = ordered
    return _in_order_of_mesh(placed.reshape([sizes[name] for name in _BY_TRAFFIC]))
