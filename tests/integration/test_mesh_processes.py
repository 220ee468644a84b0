"""`python -m rt2_jax.train` in processes that hold parts of one model between them."""

import numpy as np
import pytest

pytestmark = pytest.mark.slow

SHARED = ("--gin.MeshShape.data=1", "--gin.MeshShape.fsdp=-1", "--gin.MeshShape.tensor=2")


def test_processes_that_share_a_model_give_the_losses_of_one(
    one, together, numbers, full_check, tmp_path
):
    count = 4 if full_check else 2
    flags = ("--gin.TRAIN_STEPS=3", "--gin.RunConfig.sequence_parallel=True", *SHARED)
    processes = together(tmp_path / "all", *flags, count=count)
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, outputs
    mesh = f"mesh {{'replica': 1, 'fsdp': {count // 2}, 'data': 1, 'sequence': 1, 'tensor': 2}}"
    assert mesh in outputs[0]
    found, expected = ([line["loss"] for line in numbers(path)] for path in (tmp_path / "all", one))
    assert len(found) == 3
    np.testing.assert_allclose(found, expected[:3], rtol=2e-4)
