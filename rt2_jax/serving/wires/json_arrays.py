"""Arrays in JSON, as json-numpy 2.1 writes them; read without its way to arbitrary dtypes."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import numpy as np

_MARK = "__numpy__"
_KINDS = "biuf"


def dumps(data: Any) -> str:
    """JSON of plain data and arrays, byte for byte json-numpy's.

    Raises:
      TypeError: something that is neither.
    """
    return json.dumps(data, default=_encode)


def loads(text: bytes | str) -> Any:
    """What `dumps` was given; arrays can be written to.

    Raises:
      ValueError: no JSON, or an array whose bytes, dtype and shape do not agree.
    """
    try:
        return json.loads(text, object_hook=_decode)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deep") from error


def _encode(value: Any) -> dict[str, Any]:
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in _KINDS:
        data = base64.b64encode(value.tobytes()).decode()
        return {_MARK: data, "dtype": value.dtype.str, "shape": value.shape}
    raise TypeError(f"{type(value).__name__} cannot be sent; send arrays, numbers and text")


def _decode(value: dict[str, Any]) -> Any:
    if _MARK not in value:
        return value
    text, kind, shape = value[_MARK], value.get("dtype"), value.get("shape")
    dtype = _dtype(kind)
    if not isinstance(shape, list) or any(type(side) is not int or side < 0 for side in shape):
        raise ValueError(f"an array of shape {str(shape)[:60]}, expected whole numbers from 0")
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError(f"an array whose {_MARK!r} is no base64 ({error})") from error
    size = dtype.itemsize
    for side in shape:
        size *= side
    if size != len(data):
        raise ValueError(
            f"an array of {dtype} and shape {shape} with {len(data)} bytes, expected {size}: send "
            "C-ordered bytes and the array's own shape"
        )
    array = np.frombuffer(data, dtype).reshape(shape).copy()
    return array if shape else array[()]


def _dtype(kind: Any) -> np.dtype:
    try:
        dtype = np.dtype(kind) if isinstance(kind, str) else None
    except (TypeError, ValueError, SyntaxError):
        dtype = None
    if dtype is None or dtype.kind not in _KINDS:
        raise ValueError(
            f"an array of dtype {str(kind)[:60]!r}, expected booleans or numbers such as '|u1'"
        )
    return dtype
