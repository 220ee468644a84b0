"""Which device stands where: along the torus in a slice, and only replicas between slices."""

import dataclasses
import os

import numpy as np
import pytest

from rt2_jax.training.mesh import MESH_AXES, MeshShape, place_devices


@dataclasses.dataclass(frozen=True)
class Described:
    """What a device says about its place; a real one needs the machine."""

    id: int
    process_index: int
    platform: str = "gpu"


def tpus(topology, slices=1):
    """The devices of a TPU topology, from its compiler."""
    pytest.importorskip("libtpu", reason="no libtpu: TPU topologies are not known here")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    options = {"chip_config_name": "megacore"} if topology.startswith("v4") else {}
    if slices > 1:
        options["num_slices"] = slices
    return topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices


def place(shape, devices):
    sizes = dataclasses.asdict(shape.resolve(len(devices)))
    placed = place_devices(sizes, devices)
    assert placed.shape == tuple(sizes[name] for name in MESH_AXES)
    assert len({device.id for device in placed.flat}) == len(devices)
    return placed


def along(placed, name):
    """The devices, one row for each line along an axis."""
    axis = MESH_AXES.index(name)
    return np.moveaxis(placed, axis, -1).reshape(-1, placed.shape[axis])


def test_a_replica_is_a_group_of_whole_processes_and_tensor_stays_in_one():
    devices = [Described(id, id // 4) for id in range(16)][::-1]
    placed = place(MeshShape(replica=2, fsdp=2, data=1, tensor=4), devices)
    assert [{device.process_index for device in half.flat} for half in placed] == [{0, 1}, {2, 3}]
    for line in along(placed, "tensor"):
        assert len({device.process_index for device in line}) == 1


def test_what_moves_the_most_bytes_stays_in_a_process():
    devices = [Described(id, id // 8) for id in range(32)]
    for line in along(place(MeshShape(fsdp=8), devices), "fsdp"):
        assert len({device.process_index for device in line}) == 1


def test_a_replica_that_would_hold_parts_of_processes_is_refused():
    devices = [Described(id, id // 4) for id in range(12)]
    with pytest.raises(ValueError, match="found replica 2 for 3 processes"):
        place(MeshShape(replica=2), devices)


@pytest.mark.parametrize("shape", [MeshShape(replica=2, data=1, fsdp=-1), MeshShape(fsdp=16)])
def test_only_replica_or_data_crosses_slices_of_tpus(shape):
    placed = place(shape, tpus("v5e:4x4", 2))
    for name in ("fsdp", "sequence", "tensor"):
        for line in along(placed, name):
            assert len({device.slice_index for device in line}) == 1


def test_an_axis_that_would_cross_slices_is_refused():
    with pytest.raises(ValueError, match="for 2 slices of TPUs, so that an axis other than repl"):
        place(MeshShape(data=1, fsdp=-1), tpus("v5e:4x4", 2))


@pytest.mark.parametrize(
    ("topology", "shape"),
    [
        ("v4:4x4x4", MeshShape(data=1, fsdp=-1, tensor=2)),
        ("v5p:4x4x4", MeshShape(data=1, fsdp=8, tensor=2, sequence=4)),
        ("v5e:4x4", MeshShape(data=1, fsdp=-1, tensor=4)),
        ("v6e:4x4", MeshShape(data=1, fsdp=-1, tensor=2)),
        ("tpu7x:4x4x4", MeshShape(data=1, fsdp=-1, tensor=2)),
    ],
)
def test_tensor_goes_to_the_nearest_neighbours_of_the_torus(topology, shape):
    for line in along(place(shape, tpus(topology)), "tensor"):
        spread = np.ptp([device.coords for device in line], axis=0)
        assert np.count_nonzero(spread) <= 2 and spread.sum() <= len(line)
