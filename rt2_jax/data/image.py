"""Pictures: the one decoder, the one resize and the one augmentation of training and serving."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from rt2_jax.data.recording import IMAGE_FORMATS


def decode_image(data: bytes, where: str = "picture") -> np.ndarray:
    """Pixels, uint8 [H, W, 3], RGB, of an encoded picture (JPEG, PNG, ...).

    Raises:
      ValueError: no picture, or a damaged one; the message starts with `where`.
    """
    return np.asarray(_decode(data, where))


def _decode(data: bytes, where: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(
            f"{where}: {len(data)} bytes that are no whole picture; expected JPEG or PNG ({error})"
        ) from error


def encode_image(image: np.ndarray, kind: str) -> bytes:
    """Uint8 [H, W, 3] as an encoded picture; `kind` is one of `IMAGE_FORMATS`."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **IMAGE_FORMATS[kind])
    return file.getvalue()


@dataclass(frozen=True)
class Crop:
    """The part of a picture that is shown, as fractions of its height and width."""

    top: float
    left: float
    size: float

    @classmethod
    def choose(cls, size: float, rng: np.random.Generator | None) -> Crop:
        """A crop of this size anywhere, or without `rng` the central one.

        A model that was trained on random crops has seen everything enlarged by 1 / size, so
        evaluation and serving show it the central crop.
        """
        if rng is None:
            return cls((1 - size) / 2, (1 - size) / 2, size)
        top, left = rng.uniform(0, 1 - size, 2)
        return cls(float(top), float(left), size)


def resize(
    image: np.ndarray | bytes,
    size: tuple[int, int],
    crop: Crop | None = None,
    where: str = "picture",
) -> np.ndarray:
    """A picture in `size`, bilinear with anti-aliasing; the aspect ratio is not kept.

    Places in a picture, as fractions of its sides, stay where they are; that is what pointing
    answers are written in.

    Args:
      image: uint8 [H, W, 3], or encoded.
      size: (height, width) of the result.
      crop: the part to show; None for all.
      where: what errors call an encoded one.

    Returns:
      Uint8 [height, width, 3].

    Raises:
      ValueError: as `decode_image`.
    """
    picture = _decode(image, where) if isinstance(image, bytes) else Image.fromarray(image)
    width, height = picture.size
    if crop is None:
        if (height, width) == size:
            return np.asarray(picture)
        crop = Crop(0.0, 0.0, 1.0)
    left, top = crop.left * width, crop.top * height
    box = (left, top, left + crop.size * width, top + crop.size * height)
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box))


def shrink(data: bytes, longest_side: int, where: str = "picture") -> bytes:
    """An encoded picture whose longest side is at most this many pixels, as JPEG of quality 95.

    One that is no larger stays as it is, byte for byte. The aspect ratio is kept.

    Raises:
      ValueError: as `decode_image`.
    """
    image = decode_image(data, where)
    height, width = image.shape[:2]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return data
    small = resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))
    return encode_image(small, "jpeg")


@dataclass(frozen=True)
class Colours:
    """A change of a picture's colours, as cameras and light differ; 1, 1, 1 and 0 change nothing.

    Attributes:
      brightness: all values are multiplied by it.
      contrast: the distance to the picture's mean grey is multiplied by it.
      saturation: the distance of each pixel to its own grey is multiplied by it.
      hue: the colours are turned by so many turns around grey, from red towards green, in the
        plane of the chrominances I and Q of NTSC (which is linear, unlike that of HSV).
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0

    @classmethod
    def choose(cls, limits: Colours, rng: np.random.Generator) -> Colours:
        """A change within limits: factors from 1 - limit to 1 + limit, hue from -limit to limit."""

        def between(middle: float, limit: float) -> float:
            return float(rng.uniform(middle - limit, middle + limit)) if limit else middle

        return cls(
            between(1, limits.brightness),
            between(1, limits.contrast),
            between(1, limits.saturation),
            between(0, limits.hue),
        )

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Uint8 [H, W, 3] with its colours changed, limited to 0..255."""
        if self == Colours():
            return image
        if self == Colours(self.brightness):
            changed = image * np.float32(self.brightness)
        else:
            changed = image @ self._matrix()
            grey = changed.mean(axis=(0, 1)) @ _GREY
            changed = grey + np.float32(self.contrast) * (changed - grey)
        return np.clip(changed, 0, 255).astype(np.uint8)

    def _matrix(self) -> np.ndarray:
        """Float32 [3, 3] that rows of RGB are multiplied by: all but the contrast."""
        chroma = self.saturation * np.exp(-2j * np.pi * self.hue)
        turn = np.array([[1, 0, 0], [0, chroma.real, chroma.imag], [0, -chroma.imag, chroma.real]])
        return (self.brightness * _YIQ @ turn @ np.linalg.inv(_YIQ)).astype(np.float32)


# From RGB to the columns Y, I, Q: luminance and chrominances of NTSC (FCC 47 CFR 73.682).
_YIQ = np.array([[0.299, 0.5959, 0.2115], [0.587, -0.2746, -0.5227], [0.114, -0.3213, 0.3112]])
_GREY = _YIQ[:, 0].astype(np.float32)
