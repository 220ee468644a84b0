"""Pictures as PNG while other threads work: zlib lets them, Pillow's encoder does not.

PNG is lossless; the format is that of ISO/IEC 15948. Reading goes through `rt2_jax.data.image`.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB = 2  # colour type
_UP = 2  # filter: the difference from the row above; the same for all rows, since it is cheap
_LEVEL = 1  # of zlib: the fastest


def encode_png(image: np.ndarray) -> bytes:
    """Uint8 [H, W, 3], RGB, as PNG."""
    height, width = image.shape[:2]
    pixels = np.ascontiguousarray(image).reshape(height, 3 * width)
    rows = np.full((height, 1 + 3 * width), _UP, np.uint8)
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, _RGB, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.data, _LEVEL)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def png_size(data: bytes) -> tuple[int, int]:
    """(height, width) of a PNG, which is not decoded.

    Raises:
      ValueError: it is none.
    """
    if data[:8] != _SIGNATURE or data[12:16] != b"IHDR" or len(data) < 24:
        raise ValueError(f"found {len(data)} bytes that are no PNG")
    width, height = struct.unpack(">II", data[16:24])
    return height, width


def _chunk(kind: bytes, data: bytes) -> bytes:
    length, checksum = struct.pack(">I", len(data)), zlib.crc32(data, zlib.crc32(kind))
    return length + kind + data + struct.pack(">I", checksum)
