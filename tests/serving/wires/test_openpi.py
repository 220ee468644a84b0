"""openpi's wire beyond what `test_server.py` shows: encoded pictures, actions without terminate."""

import io

import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import connect

from rt2_jax.client.frames import pack, unpack
from rt2_jax.serving.wires.openpi import wants_plain

from ..conftest import Toy
from ..test_server import raw

PICTURE = np.random.default_rng(0).integers(0, 256, (8, 6, 3)).astype(np.uint8)


def encoded(kind):
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, kind)
    return file.getvalue()


def test_the_bytes_of_a_request_are_those_of_the_protocol():
    """Written by hand of the protocol's description: arrays are maps whose keys are bytes."""
    golden = (
        b"\x82\xb1observation/image\x84\xc4\x0b__ndarray__\xc3\xc4\x04data\xc4\x03\x01\x02\x03"
        b"\xc4\x05dtype\xa3|u1\xc4\x05shape\x93\x01\x01\x03\xa6prompt\xa2go"
    )
    request = {"observation/image": np.uint8([[[1, 2, 3]]]), "prompt": "go"}
    assert pack(request) == golden
    np.testing.assert_array_equal(unpack(golden)["observation/image"], [[[1, 2, 3]]])


def test_pictures_may_be_jpeg_or_png_under_any_name(serve):
    policy = Toy()
    _, url = serve(policy)
    frames = (
        {"images": {"front": encoded("PNG"), "wrist": PICTURE}},
        {"observation/image": encoded("PNG"), "observation/wrist_image": encoded("JPEG")},
    )
    for answer in raw(url, *(pack({**frame, "prompt": b"go"}) for frame in frames)):
        assert unpack(answer)["actions"].shape == (1, 8)
    for seen in policy.asked:
        np.testing.assert_array_equal(seen.images["front"], PICTURE)
    lossy = np.asarray(Image.open(io.BytesIO(encoded("JPEG"))))
    np.testing.assert_array_equal(policy.asked[1].images["wrist"], lossy)
    refusal = raw(url, pack({"images": {"front": b"GIF89a", "wrist": PICTURE}, "prompt": "go"}))[0]
    assert refusal.startswith("REFUSED: request: images/front: found 6 bytes that begin with")


@pytest.mark.parametrize("path", ["/plain", "/plain:8000", "/plain/x"])
def test_on_the_path_plain_actions_have_no_terminate(serve, path):
    _, url = serve(Toy(views=("front",), horizon=2))
    with connect(url + path, compression=None) as socket:
        metadata = unpack(socket.recv(timeout=10))
        assert metadata["actions_form"] == "plain" and len(metadata["plain_actions"]) == 7
        for words, ends in (("go", False), ("end", True)):
            socket.send(pack({"observation/image": PICTURE, "prompt": words}))
            answer = unpack(socket.recv(timeout=10))
            assert answer["actions"].shape == (2, 7) and answer["actions"].dtype == np.float32
            assert answer["episode_ends"].tolist() == [ends, ends]
            assert (answer["actions"][:, 0] != 0).tolist() == [not ends, not ends]


def test_other_paths_have_the_policys_own_actions():
    assert not any(map(wants_plain, ("/", "/x/plain", "/plainer", "/v1")))
