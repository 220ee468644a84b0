"""Arrays on the wire, as openpi packs them."""

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rt2_jax.client.frames import pack, unpack

KINDS = st.sampled_from(["|u1", "<f4", "<f8", "<i4", "<i8", "|b1"])


@given(arrays.arrays(KINDS, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))
def test_arrays_come_back_with_dtype_shape_and_every_bit(array):
    back = unpack(pack({"x": array, "n": [1, "a", None]}))
    assert back["n"] == [1, "a", None]
    assert back["x"].dtype == array.dtype and back["x"].shape == array.shape
    assert back["x"].tobytes() == array.tobytes() and back["x"].flags.writeable


def test_the_layout_is_openpis():
    found = msgpack.unpackb(pack(np.array([[1, 2]], np.uint8)), strict_map_key=False)
    assert found == {
        b"__ndarray__": True,
        b"data": b"\x01\x02",
        b"dtype": "|u1",
        b"shape": [1, 2],
    }
    scalar = unpack(pack(np.float32(0.5)))
    assert scalar == 0.5 and scalar.dtype == np.float32


@pytest.mark.parametrize("array", [np.array([{}]), np.array([1j]), np.zeros(1, "f4,i4")])
def test_objects_records_and_complex_numbers_are_refused(array):
    with pytest.raises(TypeError, match="cannot be sent"):
        pack(array)
    frame = {b"__ndarray__": True, b"data": b"", b"dtype": "|O", b"shape": [0]}
    with pytest.raises(TypeError, match="object cannot be sent"):
        unpack(msgpack.packb(frame))


@pytest.mark.parametrize("shape", [[3], [-1], [2, 2], ["2"]])
def test_bytes_that_are_not_the_array_are_refused(shape):
    frame = {b"__ndarray__": True, b"data": b"12", b"dtype": "|u1", b"shape": shape}
    with pytest.raises(ValueError, match="bytes"):
        unpack(msgpack.packb(frame))
