"""The type of each piece of a SentencePiece model, which sentencepiece's Python API does not tell.

Reads the protocol buffer itself: sentencepiece's own generated module needs the protobuf package,
and clashes with TensorFlow Text's copy of the same message in one process.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any


class PieceType(IntEnum):
    """`ModelProto.SentencePiece.Type` of sentencepiece_model.proto."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_PIECES_FIELD = 1
_TYPE_FIELD = 3
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5


def piece_types(model: bytes) -> list[PieceType]:
    """The type of each piece of a serialised model, in the order of ids."""
    return [_piece_type(value) for field, value in _fields(model) if field == _PIECES_FIELD]


def _piece_type(piece: bytes) -> PieceType:
    for field, value in _fields(piece):
        if field == _TYPE_FIELD:
            return PieceType(value)
    return PieceType.NORMAL


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of a message's fields: an int for a varint, else bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, wire_type = key >> 3, key & 7
        if wire_type == _VARINT:
            value, at = _varint(message, at)
            yield field, value
            continue
        if wire_type == _LENGTH_DELIMITED:
            size, at = _varint(message, at)
        else:
            size = {_FIXED64: 8, _FIXED32: 4}[wire_type]
        yield field, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
