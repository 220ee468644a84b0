"""The mesh: devices divided as asked, or an error that says what was found."""

import pytest

from rt2_jax.training.mesh import MeshShape, make_mesh


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
