"""Pictures as they are sent."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from rt2_jax.client.pictures import picture_encoder


def test_jpeg_is_small_and_close_and_raw_is_the_array():
    rows = np.linspace(0, 255, 64, dtype=np.uint8)
    picture = np.stack([np.tile(rows, (48, 1))] * 3, axis=-1)
    sent = picture_encoder("jpeg:95")(picture[:, ::-1])
    back = np.asarray(Image.open(io.BytesIO(sent)))
    assert len(sent) < picture.nbytes / 4
    assert np.abs(back.astype(int) - picture[:, ::-1]).max() <= 6
    raw = picture_encoder("raw")(picture[:, ::-1])
    assert raw.flags.c_contiguous and (raw == picture[:, ::-1]).all()


@pytest.mark.parametrize("pictures", ["png", "jpeg", "jpeg:0", "jpeg:101"])
def test_other_forms_are_refused(pictures):
    with pytest.raises(ValueError, match=f"pictures: found '{pictures}', expected 'raw' or 'jpeg"):
        picture_encoder(pictures)


def test_jpeg_without_pillow_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="needs Pillow: pip install pillow"):
        picture_encoder("jpeg:95")
