"""Pictures on their way to the server: as they are, or as JPEG."""

from __future__ import annotations

import io
import re
from typing import Any, Callable

import numpy as np


def picture_encoder(pictures: str) -> Callable[[np.ndarray], Any]:
    """How pictures are sent.

    Args:
      pictures: `raw`, the array itself (150 kB for 224 x 224; no time on the robot), or
        `jpeg:QUALITY` with a quality of 1 to 100 (about a tenth of it, 1 ms; for Wi-Fi). JPEG
        changes pixels, so answers may differ from those to raw pictures.

    Returns:
      uint8 [H, W, 3] -> what goes into the request under the view's name.

    Raises:
      ValueError: neither of the two.
      ImportError: JPEG without Pillow.
    """
    if pictures == "raw":
        return np.ascontiguousarray
    found = re.fullmatch(r"jpeg:(\d{1,3})", pictures)
    if not found or not 1 <= int(found.group(1)) <= 100:
        raise ValueError(
            f"pictures: found {pictures!r}, expected 'raw' or 'jpeg:QUALITY' with a quality of 1 "
            "to 100, e.g. 'jpeg:95'"
        )
    quality = int(found.group(1))
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            f"pictures={pictures!r} needs Pillow: pip install pillow, or send pictures='raw'"
        ) from error

    def encode(picture: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(picture)).save(file, "JPEG", quality=quality)
        return file.getvalue()

    return encode
