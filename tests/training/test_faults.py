"""What breaks ends a run with one clear reason, and what was saved before is whole."""

import os
import pathlib
import resource
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rt2_jax.training.checkpoints import Checkpoints, SaveError
from rt2_jax.training.train_state import TrainState


def make_state(step):
    kernel = np.random.default_rng(step).normal(size=(256, 256)).astype(np.float32)
    return TrainState(jnp.int32(step), {"kernel": jnp.asarray(kernel)}, {})


def restored(directory, step=None):
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding),
        make_state(0),
    )
    with Checkpoints(directory) as checkpoints:
        return checkpoints.restore(abstract, step)[0]


@pytest.fixture
def full_disk():
    """From its call on, no file can be written beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_one_line_and_the_checkpoint_before_is_whole(full_disk, tmp_path):
    with pytest.raises(SaveError, match="is the disk full.*Those before it are whole"):
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(make_state(1), {}, {})
            checkpoints.wait()
            full_disk(20_000)
            checkpoints.save(make_state(2), {}, {})
            checkpoints.wait()
    full_disk(resource.RLIM_INFINITY)
    found = restored(tmp_path)
    np.testing.assert_array_equal(found.params["kernel"], make_state(1).params["kernel"])


def test_bytes_that_changed_in_any_file_are_never_read_as_other_numbers(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(1), {}, {})
    draw, refused = np.random.default_rng(0), 0
    data = [path for path in (tmp_path / "checkpoint_1" / "state").rglob("d/*") if path.is_file()]
    largest = max(data, key=lambda path: path.stat().st_size)
    whole = largest.read_bytes()
    for _ in range(4):
        place = int(draw.integers(len(whole)))
        largest.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            found = restored(tmp_path)
        except ValueError as error:
            assert "checkpoint_1: the checkpoint is damaged" in str(error)
            refused += 1
        else:
            np.testing.assert_array_equal(found.params["kernel"], make_state(1).params["kernel"])
    assert refused


def test_a_data_worker_that_is_killed_ends_the_run_and_does_not_hang(run_config):
    from rt2_jax.benchmarks.processes import family
    from rt2_jax.training.run import prepare

    with prepare(run_config(workers=1)).batches() as batches:
        next(batches)
        for process in family(os.getpid()):
            if b"spawn_main" in pathlib.Path(f"/proc/{process}/cmdline").read_bytes():
                os.kill(process, signal.SIGKILL)
        with pytest.raises(ChildProcessError, match="a data worker has ended before batch"):
            for _ in range(20):
                next(batches)
