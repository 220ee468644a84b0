"""The frames of vla-eval's protocol, version 1: msgpack maps whose arrays have text keys."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

PROTOCOL_VERSION = 1
_FIELDS = ("type", "payload", "seq", "timestamp")
_KINDS = "biuf"


@dataclass(frozen=True)
class Frame:
    """One message.

    Attributes:
      type: hello, observation, action, episode_start, episode_end or error.
      payload: of the type. Pictures are arrays, or JPEG or PNG as they came.
      seq: of a request, and of its answer.
    """

    type: str
    payload: Mapping[str, Any]
    seq: Any


def pack(frame: Frame, timestamp: float | None = None) -> bytes:
    """A frame; `timestamp`, seconds since 1970, is by default now."""
    now = time.time() if timestamp is None else timestamp
    fields = {"type": frame.type, "payload": frame.payload, "seq": frame.seq, "timestamp": now}
    return msgpack.packb(fields, default=_encode)


def unpack(data: bytes) -> Frame:
    """A frame of its bytes.

    Raises:
      ValueError: no such frame, or an array whose bytes, dtype and shape do not agree.
    """
    try:
        found = msgpack.unpackb(data, object_hook=_decode)
    except _BadArray:
        raise
    except Exception as error:  # msgpack's errors have no base class of their own
        raise ValueError(
            f"found {len(data)} bytes that are no msgpack map ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(found, dict) or any(name not in found for name in _FIELDS):
        names = sorted(found) if isinstance(found, dict) else type(found).__name__
        raise ValueError(f"found {str(names)[:200]}, expected a map with {list(_FIELDS)}")
    if not isinstance(found["type"], str) or not isinstance(found["payload"], dict):
        raise ValueError("expected 'type' to be text and 'payload' a map")
    return Frame(found["type"], found["payload"], found["seq"])


class _BadArray(ValueError):
    """An array whose bytes, dtype and shape do not agree."""


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in _KINDS:
        return {
            "__ndarray__": True,
            "data": value.tobytes(),
            "dtype": value.dtype.str,
            "shape": list(value.shape),
        }
    if isinstance(value, np.generic) and value.dtype.kind in _KINDS:
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be sent; send arrays, numbers and text")


def _decode(value: dict[Any, Any]) -> Any:
    if "__image__" in value and value.get("format") != "raw":
        data = value.get("data")
        if value.get("format") not in ("png", "jpeg") or not isinstance(data, bytes):
            raise _BadArray(
                f"a picture of format {str(value.get('format'))[:40]!r}, expected 'png', 'jpeg' or "
                "'raw'"
            )
        return data
    if "__image__" not in value and "__ndarray__" not in value:
        return value
    data, shape, kind = value.get("data"), value.get("shape"), value.get("dtype")
    try:
        dtype = np.dtype(kind) if isinstance(kind, str) else None
    except (TypeError, ValueError, SyntaxError):
        dtype = None
    if dtype is None or dtype.kind not in _KINDS:
        raise _BadArray(f"an array of dtype {str(kind)[:40]!r}, expected booleans or numbers")
    if (
        not isinstance(shape, list)
        or any(type(side) is not int or side < 0 for side in shape)
        or not isinstance(data, bytes)
    ):
        raise _BadArray(f"an array of shape {str(shape)[:60]}, expected whole numbers and bytes")
    size = dtype.itemsize
    for side in shape:
        size *= side
    if size != len(data):
        raise _BadArray(
            f"an array of {dtype} and shape {shape} with {len(data)} bytes, expected {size}"
        )
    return np.frombuffer(data, dtype).reshape(shape).copy()
