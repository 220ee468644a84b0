"""The mesh of devices, by name: `fsdp`, `data`, `tensor`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """How many devices along each axis; -1, at most once, is what the others leave.

    Attributes:
      fsdp: parts of the parameters; each also has its part of the batch (ZeRO-3, Rajbhandari et
        al. 2020).
      data: copies of the model, each with its part of the batch.
      tensor: parts of every layer, with the same examples (Megatron, Shoeybi et al. 2019).
    """

    fsdp: int = 1
    data: int = -1
    tensor: int = 1

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
    """A mesh over the devices, by default all.

    Raises:
      ValueError: the devices cannot be divided so.
    """
    devices = jax.devices() if devices is None else devices
    sizes = dataclasses.asdict(shape.resolve(len(devices)))
    return jax.make_mesh(
        tuple(sizes.values()),
        tuple(sizes),
        axis_types=(AxisType.Auto,) * len(sizes),
        devices=devices,
    )
