"""A policy on several devices: each holds its part, and the tokens are those of one device."""

import jax
import numpy as np
import pytest

from rt2_jax.actions.policy import Observation
from rt2_jax.inference.engine import PolicyEngine
from rt2_jax.inference.placement import Placement, read_mesh
from rt2_jax.training.mesh import MeshShape


def observation(seed):
    draw = np.random.default_rng(seed)
    images = {view: draw.integers(0, 256, (24, 32, 3), np.uint8) for view in ("front", "wrist")}
    return Observation(images, f"push cube {seed}")


def held(params):
    """Bytes of parameters on each device that has any."""
    counts = {}
    for leaf in jax.tree.leaves(params):
        for shard in leaf.addressable_shards:
            counts[shard.device.id] = counts.get(shard.device.id, 0) + shard.data.nbytes
    return counts


@pytest.mark.slow
def test_tokens_are_those_of_one_device_and_no_device_holds_all(untrained, full_check):
    if not full_check:
        pytest.skip("in full only: tests/cli/test_serve.py has it in processes")
    one = PolicyEngine.from_checkpoint(untrained, (4,))
    # The small model's vision has two heads.
    placement = Placement(read_mesh("fsdp=2,tensor=2"))
    several = PolicyEngine.from_checkpoint(untrained, (4,), placement=placement)
    observations = [observation(seed) for seed in range(12)]
    for a, b in zip(one.act(observations), several.act(observations), strict=True):
        np.testing.assert_array_equal(a["tokens"], b["tokens"])
        np.testing.assert_allclose(a["score"], b["score"], atol=1e-4)
    assert one.metadata["weights"] == several.metadata["weights"]
    whole, parts = (held(each._programs._params) for each in (one, several))
    assert len(parts) == 4
    assert max(parts.values()) < 0.5 * max(whole.values())


def test_a_model_that_cannot_be_divided_so_is_refused_before_its_weights_are_read(untrained):
    with pytest.raises(ValueError, match="heads.* of 4 cannot be divided into 8 parts"):
        PolicyEngine.from_checkpoint(untrained, placement=Placement(read_mesh("tensor=8")))


def test_axes_that_are_not_named_are_whole_and_the_first_devices_are_taken():
    assert read_mesh("fsdp=1,tensor=4") == MeshShape(data=1, tensor=4)
    assert [device.id for device in Placement(read_mesh("tensor=2")).devices] == [0, 1]
    assert len(Placement(read_mesh("tensor=-1")).devices) == jax.device_count()


@pytest.mark.parametrize("text", ["tensor", "tensor=0", "tensr=2", "tensor=two", "", "4"])
def test_a_mesh_that_is_written_otherwise_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="such as tensor=4"):
        read_mesh(text)


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(ValueError, match=f"for {jax.device_count()} devices"):
        Placement(read_mesh("tensor=1024"))
