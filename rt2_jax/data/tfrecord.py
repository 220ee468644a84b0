"""TFRecord files without TensorFlow, whose import costs seconds and hundreds of megabytes.

A record is its length (uint64), the length's checksum, the bytes and their checksum (uint32), all
little-endian. The checksum is CRC-32C (RFC 3720, appendix B.4), masked as
`tensorflow/core/lib/hash/crc32c.h` does.
"""

from __future__ import annotations

import functools
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator

import numpy as np

_POLYNOMIAL = 0x82F63B78
_START = bytes.fromhex("54641f64")  # takes the register from 0 to all ones, where CRC-32C starts
_LANE = 256  # bytes; long records are taken in lanes of this many, all at once


def write_records(path: pathlib.Path, records: Iterable[bytes]) -> None:
    """Writes a file of these records.

    A file of this name is always whole: it is written as `<name>.unfinished` and then renamed. What
    a killed writer has left is overwritten; the caller sees to it that there is one at a time.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    with unfinished.open("wb") as file:
        for record in records:
            file.write(framed(record))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def framed(record: bytes) -> bytes:
    """A record as it stands in a file: with its length and checksums."""
    length = struct.pack("<Q", len(record))
    return length + _checksum(length) + record + _checksum(record)


def read_records(path: pathlib.Path) -> Iterator[bytes]:
    """The records of a file.

    Raises:
      ValueError: a record is cut short or damaged; the message names the file and the record.
    """
    with path.open("rb") as file:
        index = 0
        while header := file.read(12):
            length, checksum = header[:8], header[8:]
            whole = checksum == _checksum(length)
            record = file.read(struct.unpack("<Q", length)[0]) if whole else b""
            if not whole or file.read(4) != _checksum(record):
                raise ValueError(f"{path}: record {index} is cut short or damaged; delete the file")
            yield record
            index += 1


def _checksum(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def crc32c(data: bytes) -> int:
    """CRC-32C of the bytes."""
    data = _START + data
    lanes = -(-len(data) // _LANE)
    # Zeros in front leave a register of 0 as it is.
    padded = data.rjust(lanes * _LANE if lanes > 1 else 0, b"\0")
    columns = np.frombuffer(padded, np.uint8).reshape(lanes, -1).T.astype(np.uint32)
    skip = _skip_lane()
    register = 0
    for lane in _feed(np.zeros(lanes, np.uint32), columns).tolist():
        register = (
            skip[0][register & 255]
            ^ skip[1][register >> 8 & 255]
            ^ skip[2][register >> 16 & 255]
            ^ skip[3][register >> 24]
            ^ lane
        )
    return register ^ 0xFFFFFFFF


def _feed(registers: np.ndarray, columns: Iterable[np.ndarray | int]) -> np.ndarray:
    """Feeds every register, uint32, its byte of each column."""
    table = _table()
    for column in columns:
        registers = table[(registers ^ column) & 255] ^ registers >> 8
    return registers


@functools.cache
def _table() -> np.ndarray:
    """What each value of a byte does to the register, uint32 [256]."""
    table: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = table >> 1 ^ (table & 1) * np.uint32(_POLYNOMIAL)
    return table


@functools.cache
def _skip_lane() -> list[list[int]]:
    """[4][256]: what a lane of zeros makes of each byte of a register, the lowest first."""
    registers = np.arange(256, dtype=np.uint32) << np.array([[0], [8], [16], [24]], np.uint32)
    return _feed(registers, [0] * _LANE).tolist()
