"""The frames of the wire: msgpack maps with arrays in them, as openpi packs them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rt2_jax.client.frame_limits import check_frame

PROTOCOL_VERSION = 1
"""Raised by one when a client of an earlier version could no longer understand the server."""

DEADLINE = "DEADLINE"
"""First word of a text frame that answers a request whose time was over."""


_MOST_SIDES = 32


def pack(data: Any) -> bytes:
    """A msgpack frame of plain data and numpy arrays.

    Raises:
      TypeError: an array of objects, records or complex numbers, or something that is no data.
    """
    import msgpack

    return msgpack.packb(data, default=_encode)


def unpack(frame: bytes) -> Any:
    """What `pack` was given; arrays can be written to.

    Raises:
      ValueError: no such frame, or an array whose bytes and shape do not agree.
    """
    import msgpack

    try:
        check_frame(frame)
        return msgpack.unpackb(frame, object_hook=_decode, strict_map_key=False)
    except (TypeError, _BadArray):
        raise
    except Exception as error:  # msgpack's errors have no base class of their own
        raise ValueError(
            f"found {len(frame)} bytes that are no msgpack map ({type(error).__name__}: {error}); "
            "pack requests as openpi's msgpack_numpy does"
        ) from error


class _BadArray(ValueError):
    """An array whose bytes and shape do not agree."""


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        _check_kind(value.dtype)
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    if isinstance(value, np.generic):
        _check_kind(value.dtype)
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"{type(value).__name__} cannot be sent; send arrays, numbers and text")


def _decode(value: Any) -> Any:
    if b"__ndarray__" in value:
        dtype = np.dtype(value[b"dtype"])
        _check_kind(dtype)
        shape, data = value[b"shape"], value[b"data"]
        if not isinstance(data, bytes) or not _is_shape(shape):
            raise _BadArray(
                f"an array whose shape is {str(shape)[:80]} and whose data is "
                f"{type(data).__name__}, expected at most {_MOST_SIDES} sides and bytes"
            )
        size = dtype.itemsize
        for side in shape:
            size *= side
        if size != len(data):
            raise _BadArray(
                f"an array of {dtype} and shape {list(shape)} with {len(data)} bytes, expected "
                f"{size}: send C-ordered bytes and the array's own shape"
            )
        return np.frombuffer(data, dtype).reshape(shape).copy()
    if b"__npgeneric__" in value:
        dtype = np.dtype(value[b"dtype"])
        _check_kind(dtype)
        return dtype.type(value[b"data"])
    return value


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) <= _MOST_SIDES
        and all(type(side) is int and 0 <= side < 2**31 for side in shape)
    )


def _check_kind(dtype: np.dtype) -> None:
    if dtype.kind in "VOc":
        raise TypeError(f"an array of {dtype} cannot be sent; send booleans, numbers or text")
