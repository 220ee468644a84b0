"""Encoded pictures of requests become pixels: off the event loop, few at a time, none too large."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from rt2_jax.data.image import decode_image
from rt2_jax.serving.busy import BusyError
from rt2_jax.serving.limits import Limits

_FORMATS = ("JPEG", "PNG")
_SCANS = 64  # of a JPEG; a progressive one has about ten, and each is a pass over all pixels


class PictureDecoder:
    """Decodes JPEG and PNG on threads of its own, with the decoder of training.

    Args:
      limits: `pixels` of a picture, `decoding_threads` and `decoding_waiting`.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._threads = ThreadPoolExecutor(self._limits.decoding_threads, "pictures")
        self._most = self._limits.decoding_threads + self._limits.decoding_waiting
        self._room = threading.Semaphore(self._most)

    async def decode_pictures(self, pictures: Mapping[str, Any]) -> dict[str, Any]:
        """Pictures with those that are bytes decoded; arrays, and whatever is neither, stay.

        Args:
          pictures: view -> JPEG or PNG, or uint8 [H, W, 3].

        Raises:
          ValueError: no picture, a damaged one or too many pixels; the message names the view.
          BusyError: too many pictures wait already.
        """
        # One after the other: a request then never takes more than one of the threads.
        return {
            view: await self.decode(data, f"request: images/{view}")
            if isinstance(data, bytes)
            else data
            for view, data in pictures.items()
        }

    async def decode(self, data: bytes, where: str = "request: picture") -> np.ndarray:
        """Pixels, uint8 [H, W, 3], RGB.

        Raises:
          ValueError: as `decode_pictures`; the message begins with `where`.
          BusyError: too many pictures wait already.
        """
        check_picture(data, self._limits.pixels, where)
        if not self._room.acquire(blocking=False):
            raise BusyError(f"{where}: {self._most} pictures are being decoded; send it later")
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._decode, data, where)
        return await asyncio.shield(work)  # it makes room again even if the client has gone

    def _decode(self, data: bytes, where: str) -> np.ndarray:
        try:
            return decode_image(data, where)
        except ValueError:
            raise
        except Exception as error:  # Pillow's decoders raise many kinds on damaged bytes
            raise ValueError(f"{where}: a damaged picture ({error})") from error
        finally:
            self._room.release()

    def close(self) -> None:
        """Ends the threads, once they are done."""
        self._threads.shutdown(wait=False)


def check_picture(data: bytes, pixels: int, where: str) -> None:
    """Refuses, by its header alone, what would take long or much memory to decode.

    Raises:
      ValueError: neither JPEG nor PNG, too many pixels, or a JPEG of far too many scans.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            kind = image.format
    except Image.DecompressionBombError as error:
        raise ValueError(f"{where}: {error}; expected at most {pixels} pixels") from error
    except Exception as error:  # whatever a damaged header makes of it
        raise ValueError(
            f"{where}: found {len(data)} bytes that begin with {data[:8]!r}, expected a whole JPEG "
            "or PNG, or an array uint8 [H, W, 3]"
        ) from error
    if width * height > pixels:
        raise ValueError(
            f"{where}: found {width} x {height} pixels, expected at most {pixels} in all: "
            "send smaller pictures, the policy resizes them anyway"
        )
    scans = data.count(b"\xff\xda")
    if kind == "JPEG" and scans > _SCANS:
        raise ValueError(f"{where}: found a JPEG of {scans} scans, expected at most {_SCANS}")
