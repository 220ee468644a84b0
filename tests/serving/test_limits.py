"""How large a request, and a picture in it, may be."""

import asyncio
import io
import threading

import msgpack
import numpy as np
import pytest
from PIL import Image

from rt2_jax.cli.serve_security import _limits
from rt2_jax.client.frame_limits import DEEPEST, MOST_VALUES, check_frame
from rt2_jax.client.frames import unpack
from rt2_jax.serving import pictures
from rt2_jax.serving.busy import BusyError
from rt2_jax.serving.input_checks import check_request, without_paths
from rt2_jax.serving.limits import Limits
from rt2_jax.serving.pictures import PictureDecoder
from rt2_jax.serving.service import message, say_once

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)


def encoded(array, kind, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def decode(data, **limits):
    return asyncio.run(PictureDecoder(Limits(**limits)).decode(data))


def test_limits_follow_from_what_the_policy_looks_at():
    small = Limits.of_policy({"views": ["front"], "camera_size": (224, 224)})
    assert small.pixels == 1920 * 1080
    large = Limits.of_policy({"views": ["front", "wrist"], "camera_size": (2000, 3000)})
    assert large.pixels == 24_000_000 and large.frame_bytes > 2 * 3 * 24_000_000
    assert Limits.of_policy({"views": ["front"]}, frame_bytes=7, pixels=100).frame_bytes == 7
    with pytest.raises(ValueError, match="limits: send_s: found 0, expected a number above 0"):
        Limits(send_s=0)


def test_limits_of_the_command_are_named():
    assert _limits(["pixels=80", "request_s=2.5"]) == {"pixels": 80, "request_s": 2.5}
    for words in (["pixel=80"], ["pixels"], ["pixels=much"]):
        with pytest.raises(ValueError, match="--limit: found .*, expected NAME=NUMBER with a name"):
            _limits(words)


def test_pictures_are_decoded_and_arrays_stay():
    decoder = PictureDecoder()
    given = {"front": encoded(PIXELS, "PNG"), "wrist": PIXELS, "odd": 3}
    got = asyncio.run(decoder.decode_pictures(given))
    assert (got["front"] == PIXELS).all() and got["wrist"] is PIXELS and got["odd"] == 3
    with pytest.raises(ValueError, match="request: images/front: found 3 bytes that begin with"):
        asyncio.run(decoder.decode_pictures({"front": b"abc"}))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "found 0 bytes"),
        (encoded(PIXELS, "BMP"), "expected a whole JPEG or PNG"),
        (encoded(PIXELS, "PNG")[:90], "no whole picture"),
        (
            encoded(np.zeros((900, 900), np.uint8), "PNG"),
            "found 900 x 900 pixels, expected at most",
        ),
        (encoded(np.zeros((14_000, 14_000), np.uint8), "PNG"), "decompression bomb"),
        (encoded(PIXELS, "JPEG")[:-2] + b"\xff\xda\0\3\0" * 1000, "a JPEG of 1001 scans"),
    ],
)
def test_what_would_take_long_to_decode_is_refused_by_its_header(data, message, monkeypatch):
    if "whole picture" not in message:
        monkeypatch.setattr(pictures, "decode_image", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=message):
        decode(data, pixels=800_000)


def test_pictures_beyond_those_that_may_wait_are_busy_and_the_loop_goes_on(monkeypatch):
    go_on = threading.Event()
    monkeypatch.setattr(pictures, "decode_image", lambda *_: go_on.wait(10))
    data = encoded(PIXELS, "PNG")

    async def crowd():
        decoder = PictureDecoder(Limits(decoding_threads=1, decoding_waiting=2))
        tasks = [asyncio.create_task(decoder.decode(data)) for _ in range(3)]
        await asyncio.sleep(0.01)
        with pytest.raises(BusyError, match="3 pictures are being decoded"):
            await decoder.decode(data)
        tasks[2].cancel()  # its client has gone, but it still takes its place
        with pytest.raises(BusyError):
            await decoder.decode(data)
        go_on.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)
        return await decoder.decode(data)

    assert asyncio.run(crowd()) is True


def test_frames_that_would_grow_in_memory_are_refused_before_they_are_unpacked():
    for frame, said in (
        (b"\x91" * (DEEPEST + 1) + b"\0", "deep"),
        (b"\xdd" + (MOST_VALUES + 1).to_bytes(4, "big") + b"\x80" * (MOST_VALUES + 1), "values"),
        (b"\xdf\xff\xff\xff\xff", "values"),
        (b"\xc6\xff\xff\xff\xff", "cut off"),
        (b"\x01\x02", "1 bytes too many"),
    ):
        with pytest.raises(ValueError, match=said):
            unpack(frame)


def test_the_walk_through_a_frame_agrees_with_msgpack():
    lengths = (0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536)
    values = [None, True, -1, -33, 127, 255, 65_535, 2**32, -(2**40), 1.5]
    values += ["a" * n for n in lengths] + [b"a" * n for n in lengths]
    values += [msgpack.ExtType(1, b"a" * n) for n in (0, 1, 2, 3, 4, 8, 16, 300, 70_000)]
    values += [[0] * n for n in lengths] + [dict.fromkeys(range(n), 0) for n in (0, 15, 16, 20_000)]
    for value in values:
        frame = msgpack.packb(value)
        check_frame(frame)
        for broken in (frame[:-1], frame + b"\0"):
            with pytest.raises(ValueError):
                check_frame(broken)


def test_a_shape_cannot_make_the_server_multiply_text():
    frame = {b"__ndarray__": True, b"data": b"", b"dtype": "|u1", b"shape": ["x" * 1000, 10**9]}
    with pytest.raises(ValueError, match="an array whose shape is"):
        unpack(msgpack.packb(frame))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"prompt": "x" * 9000}, "prompt: found 9000 characters, expected at most 8192"),
        ({"session": "x" * 300}, "session: found 300 characters"),
        ({"seq": [1]}, "seq: found a list, expected a number or short text"),
        ({"step": -1}, "step: found '-1', expected a number from 0"),
        ({"step": "3"}, "step: found '3', expected a number from 0"),
        ({"x" * 300: 1}, "found a name that is 'xxx"),
        ({7: 1}, "found a name that is '7', a int"),
        ({str(i): 0 for i in range(300)}, "found 300 names"),
        ({"images": {"front": np.zeros((3000, 4000, 3), np.uint8)}}, "4000 x 3000 pixels"),
        ({"observation/image": np.zeros((3, 3000, 4000), np.uint8)}, "4000 x 3000 pixels"),
    ],
)
def test_a_request_with_parts_that_are_too_large_is_refused(request_, said):
    with pytest.raises((TypeError, ValueError), match=said):
        check_request(request_, Limits())


def test_messages_to_clients_are_short_and_hold_no_paths():
    assert without_paths("no '/srv/models/a b' in /srv/me/x.json: gone") == (
        "no '... b' in ...: gone"
    )
    for kept in ("send images/front", "observation/image", "ws://host:1/path/x", "3 / 4", "and/or"):
        assert without_paths(kept) == kept
    assert len(message(ValueError("x" * 10**6))) < 1100


def test_warnings_of_a_connection_come_to_an_end():
    told = set()
    said = [say_once([f"nobody reads {i!r}"], told, "c") for i in range(300)]
    assert len(told) <= 101 and "too many warnings" in said[100][0] and said[-1] == []
