"""Frames of robots as pictures for the page."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from rt2_jax.data.image import encode_image

_LONGEST = 480  # pixels of a thumbnail's longer side


def thumbnail(frame: np.ndarray) -> bytes:
    """A frame, uint8 [H, W, 3], as a small JPEG."""
    image = Image.fromarray(frame)
    image.thumbnail((_LONGEST, _LONGEST))
    file = io.BytesIO()
    image.save(file, "jpeg", quality=80)
    return file.getvalue()


def whole_frame(frame: np.ndarray) -> bytes:
    """A frame, uint8 [H, W, 3], as PNG: the same pixels."""
    return encode_image(frame, "png")
