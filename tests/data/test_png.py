"""PNG files of our own making: any reader gives the pixels back."""

import io

import numpy as np
import pytest
from PIL import Image

from rt2_jax.data.image import decode_image
from rt2_jax.data.png import encode_png, png_size


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 1), (48, 64)])
def test_pixels_come_back_as_they_were(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    data = encode_png(image)
    np.testing.assert_array_equal(decode_image(data), image)
    assert Image.open(io.BytesIO(data)).format == "PNG" and png_size(data) == size


def test_a_part_of_a_picture_is_a_picture():
    image = np.arange(10 * 12 * 3, dtype=np.uint8).reshape(10, 12, 3)[::2, 3:]
    np.testing.assert_array_equal(decode_image(encode_png(image)), image)


def test_what_is_no_png_has_no_size():
    with pytest.raises(ValueError, match="found 6 bytes that are no PNG"):
        png_size(b"\xff\xd8\xff\xe0ab")
