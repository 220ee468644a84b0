"""Which rows of a global batch each process reads."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding


@dataclasses.dataclass(frozen=True)
class DataLayout:
    """The rows of every global batch that the devices of one process hold.

    Processes that hold the same rows, as where `tensor` spans them, read the same rows; so a global
    batch is the same at any number of processes and on any mesh. T5X's `get_data_layout` says the
    same of meshes whose processes hold blocks; on a torus they may hold any rows.

    Attributes:
      rows: int [n], rising; where in a global batch they stand.
      shard: processes of the same number hold the same rows; None if some rows of this process, but
        not all, are those of another.
      shards: how many different sets of rows there are; None with `shard`.
    """

    rows: np.ndarray
    shard: int | None
    shards: int | None

    @classmethod
    def of(
        cls, sharding: NamedSharding, global_batch_size: int, process: int | None = None
    ) -> DataLayout:
        """That of a process, by default this one, where `sharding` divides the rows.

        Raises:
          ValueError: the rows cannot be divided into equal parts.
        """
        held = _parts_of_processes(sharding)
        count = 1 + max(max(parts) for parts in held.values())
        if global_batch_size % count:
            raise ValueError(
                f"global batch size: found {global_batch_size}, expected a multiple of {count}, "
                f"the parts that the mesh {dict(sharding.mesh.shape)} divides it into"
            )
        mine = held[jax.process_index() if process is None else process]
        size = global_batch_size // count
        rows = (np.array(mine)[:, None] * size + np.arange(size)).reshape(-1)
        sets = sorted(set(held.values()))
        apart = sum(map(len, sets)) == count and len({len(parts) for parts in sets}) == 1
        return cls(rows, sets.index(mine) if apart else None, len(sets) if apart else None)

    def apart(self, streams: Iterable[str]) -> tuple[int, int]:
        """`shard` and `shards`, for tasks that are read as streams.

        Raises:
          ValueError: there are none.
        """
        if self.shard is None or self.shards is None:
            raise ValueError(
                f"mesh: found processes that hold some rows of a batch in common, but not all, and "
                f"{', '.join(streams)} are not cached and read in parts that have nothing in "
                "common; cache them, or choose another mesh"
            )
        return self.shard, self.shards


def parts_held(sharding: NamedSharding) -> tuple[int, int]:
    """How many of the equal parts of a batch this process holds, and how many there are."""
    held = _parts_of_processes(sharding)
    return len(held[jax.process_index()]), 1 + max(max(parts) for parts in held.values())


@functools.lru_cache(maxsize=8)
def _parts_of_processes(sharding: NamedSharding) -> dict[int, tuple[int, ...]]:
    """Process -> the parts of the rows that its devices hold, rising."""
    axes = sharding.spec[0] if sharding.spec else ()
    names = (axes,) if isinstance(axes, str) else tuple(axes or ())
    count = int(np.prod([sharding.mesh.shape[name] for name in names], dtype=int))
    held: dict[int, set[int]] = {}
    device: Any
    for device, (rows, *_) in sharding.devices_indices_map((count,)).items():
        held.setdefault(device.process_index, set()).add(rows.start or 0)
    return {process: tuple(sorted(parts)) for process, parts in held.items()}
