"""openpi's wire beyond what `test_server.py` shows: encoded pictures, actions without terminate."""

import io

import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import connect

from rt2_jax.client.frames import pack, unpack
from rt2_jax.serving.wires.openpi import wants_plain

from ..conftest import Toy, together
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


class Drawing(Toy):
    """Draws as many answers as are asked for."""

    def infer_batch(self, observations, sampling=None):
        results = super().infer_batch(observations)
        self.batches[-1] = (self.batches[-1], sampling)
        for result in results if sampling else ():
            result["samples"] = {"actions": np.stack([result["actions"]] * sampling.num_samples)}
        return results


def test_drawn_answers_are_given_to_those_who_ask_and_to_no_others_of_the_batch(serve):
    policy = Drawing(seconds=0.1, views=("front",), most_samples=4)
    _, url = serve(policy)
    ask = {"image": PICTURE, "prompt": "go"}
    frames = [ask, {**ask, "num_samples": 3, "temperature": 0.5}, {**ask, "seed": 7}]
    answers = together(3, lambda i: unpack(raw(url, pack(frames[i]))[0]))
    assert [np.shape(each.get("samples", {}).get("actions")) for each in answers] == [
        (),
        (3, 1, 8),
        (1, 1, 8),
    ]
    assert all(each["warnings"] == [] for each in answers) and len(policy.batches) == 3
    too_many, wrong = raw(url, pack({**ask, "num_samples": 5}), pack({**ask, "temperature": -1}))
    assert "num_samples: found 5, expected at most 4" in too_many
    assert "temperature: found -1, expected 0 to 100" in wrong
    [refused] = raw(serve(Toy(views=("front",)))[1], pack({**ask, "num_samples": 2}))
    assert refused.startswith("REFUSED: request: asks for 2 drawn answers, and this server gives")


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
