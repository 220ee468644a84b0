"""The frames of the wire: msgpack maps with arrays in them, as openpi packs them."""

from __future__ import annotations

from typing import Any

import numpy as np

PROTOCOL_VERSION = 1
"""Raised by one when a client of an earlier version could no longer understand the server."""

DEADLINE = "DEADLINE"
"""First word of a text frame that answers a request whose time was over."""


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
        return msgpack.unpackb(frame, object_hook=_decode, strict_map_key=False)
    except ValueError:
        raise
    except Exception as error:  # msgpack's errors have no base class of their own
        raise ValueError(f"found {len(frame)} bytes that are no msgpack frame ({error})") from error


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
        return np.frombuffer(value[b"data"], dtype).reshape(value[b"shape"]).copy()
    if b"__npgeneric__" in value:
        dtype = np.dtype(value[b"dtype"])
        _check_kind(dtype)
        return dtype.type(value[b"data"])
    return value


def _check_kind(dtype: np.dtype) -> None:
    if dtype.kind in "VOc":
        raise TypeError(f"an array of {dtype} cannot be sent; send booleans, numbers or text")
