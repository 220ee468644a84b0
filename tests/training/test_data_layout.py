"""Which rows of a batch a process reads: those that its devices hold, wherever they stand."""

import dataclasses
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from rt2_jax.training.data_layout import DataLayout


@dataclasses.dataclass(frozen=True)
class Sharding:
    """A `NamedSharding` of rows over the devices of several machines, which are not here."""

    processes: tuple[tuple[int, ...], ...]  # of every part, the processes that hold it

    spec = PartitionSpec("parts")

    @property
    def mesh(self):
        return AbstractMesh((len(self.processes),), ("parts",))

    def devices_indices_map(self, shape):
        size = shape[0] // len(self.processes)
        return {
            Device(len(self.processes) * place + part, process): (
                slice(part * size, (part + 1) * size),
            )
            for part, holders in enumerate(self.processes)
            for place, process in enumerate(holders)
        }


@dataclasses.dataclass(frozen=True)
class Device:
    id: int
    process_index: int


def layouts(*processes):
    sharding = Sharding(processes)
    count = 1 + max(map(max, processes))
    return [DataLayout.of(sharding, 8, process) for process in range(count)]


def test_without_copies_every_process_reads_its_own_block():
    first, second = layouts((0,), (0,), (1,), (1,))
    assert first.rows.tolist() == [0, 1, 2, 3] and second.rows.tolist() == [4, 5, 6, 7]
    assert [(each.shard, each.shards) for each in (first, second)] == [(0, 2), (1, 2)]


def test_processes_that_share_a_model_read_the_same_rows():
    found = layouts((0, 1), (2, 3))
    assert [each.rows.tolist() for each in found] == [[0, 1, 2, 3]] * 2 + [[4, 5, 6, 7]] * 2
    assert [each.apart(["web"]) for each in found] == [(0, 2), (0, 2), (1, 2), (1, 2)]


def test_on_a_torus_the_rows_of_a_process_may_stand_apart():
    first, second = layouts((0,), (1,), (0,), (1,))
    assert first.rows.tolist() == [0, 1, 4, 5] and second.rows.tolist() == [2, 3, 6, 7]


def test_rows_partly_in_common_are_read_twice_and_refused_for_streams():
    found = layouts((0,), (0, 1), (1, 2), (2,))
    assert [each.rows.tolist() for each in found] == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
    with pytest.raises(ValueError, match="web are not cached and read in parts"):
        found[0].apart(["web"])


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match="found 9, expected a multiple of 4, the parts"):
        DataLayout.of(Sharding(((0,), (0,), (1,), (1,))), 9, 0)


def test_a_batch_with_rows_too_few_for_this_process_is_refused(tiny):
    with pytest.raises(ValueError, match="source_id: found 3 rows, expected a multiple of 2"):
        tiny.make_partitioner(2).to_devices({"source_id": np.zeros(3, np.int32)})


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_make_the_same_global_batch_with_tensor_between_them(count, full_check):
    if count == 2 and not full_check:
        pytest.skip("four processes show it; two run in make check-long")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = pathlib.Path(__file__).with_name("rows_of_processes.py")
    processes = [
        subprocess.Popen(
            [sys.executable, program, str(index), str(count), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(count)
    ]
    for process in processes:
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 0 and "all rows in their places" in output, output
