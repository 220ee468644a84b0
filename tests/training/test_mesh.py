"""The mesh: devices divided as asked, or an error that says what was found."""

import jax
import pytest
from jax.sharding import PartitionSpec

from rt2_jax.training.mesh import MeshShape, make_mesh
from rt2_jax.training.partitioning import Partitioner, logical_axis_rules


def test_the_open_axis_takes_what_the_others_leave():
    assert MeshShape(fsdp=2, tensor=2).resolve(8) == MeshShape(fsdp=2, data=2, tensor=2)
    assert MeshShape(data=2, fsdp=-1).resolve(8) == MeshShape(fsdp=4, data=2, tensor=1)
    assert MeshShape(fsdp=8, data=1).resolve(8) == MeshShape(fsdp=8, data=1)
    assert MeshShape(replica=2, sequence=2).resolve(8) == MeshShape(replica=2, data=2, sequence=2)


def test_a_mesh_has_named_axes_over_all_devices():
    mesh = make_mesh(MeshShape(tensor=4))
    assert dict(mesh.shape) == {"replica": 1, "fsdp": 1, "data": 2, "sequence": 1, "tensor": 4}


@pytest.mark.parametrize(
    "shape",
    [
        MeshShape(data=3),
        MeshShape(fsdp=3),
        MeshShape(fsdp=-1, data=-1),
        MeshShape(tensor=0),
        MeshShape(replica=3),
        MeshShape(sequence=16),
        MeshShape(data=-2),
        MeshShape(data=1),
    ],
)
def test_a_shape_that_does_not_fit_the_devices_is_refused(shape):
    with pytest.raises(ValueError, match="for 8 devices; expected positive sizes whose product"):
        shape.resolve(8)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (("embd", "fsdp"), "found the logical axis 'embd', expected one of batch, embed,"),
        (("embed", "model"), "'embed': found the mesh axis 'model', expected one of replica, fsdp"),
        ("embed", r"found 'embed', expected pairs such as \('embed', 'fsdp'\)"),
    ],
)
def test_a_rule_for_an_axis_that_is_not_there_is_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        logical_axis_rules((rule,))


def test_rules_of_a_run_win_over_the_standard_ones():
    mesh = make_mesh(MeshShape(data=1, fsdp=2, tensor=2, replica=2))
    params = {"kernel": jax.ShapeDtypeStruct((8, 8), "float32")}
    axes = {"kernel": ("embed", "mlp")}

    def spec(rules):
        return Partitioner(mesh, rules).parameter_shardings(params, axes)["kernel"].spec

    assert spec(logical_axis_rules()) == PartitionSpec(("fsdp",), ("tensor",))
    additional = (("mlp", None), ("embed", ("fsdp", "tensor")))
    assert spec(logical_axis_rules(additional)) == PartitionSpec(("fsdp", "tensor"), None)


def test_replicas_hold_the_same_parts_of_the_parameters_and_other_rows():
    partitioner = Partitioner(make_mesh(MeshShape(data=1, fsdp=4, replica=2)))
    params = {"kernel": jax.ShapeDtypeStruct((8, 8), "float32")}
    (sharding,) = partitioner.parameter_shardings(params, {"kernel": ("embed", "mlp")}).values()
    assert sharding.shard_shape((8, 8)) == (2, 8)
    assert partitioner.batch_sharding.shard_shape((8,)) == (1,) and partitioner.batch_parts == 8
