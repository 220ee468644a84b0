"""vla-eval's model server: frames, episodes, chunks, conventions and the two pages."""

import contextlib
import io
import json

import msgpack
import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import connect

from rt2_jax.serving.wires.vla_eval_frames import Frame, pack, unpack

from ..conftest import Toy
from ..test_server import page

PICTURE = np.full((4, 6, 3), 100, np.uint8)


def png(value):
    file = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(file, "PNG")
    return {"__image__": True, "format": "png", "data": file.getvalue(), "shape": [4, 6, 3]}


def observation(value=100, words="go", **fields):
    images = {"agentview": png(value), "wrist": png(value + 1)}
    return {"images": images, "task_description": words, **fields}


class Client:
    """Speaks first, as the harness does."""

    def __init__(self, url, query=""):
        self._opened = contextlib.ExitStack()
        connecting = connect(f"{url}/vla-eval{query}", compression=None)
        self._socket = self._opened.enter_context(connecting)
        self.seq = 0

    def send(self, kind, payload):
        self.seq += 1
        fields = {"type": kind, "payload": payload, "seq": self.seq, "timestamp": 0.0}
        self._socket.send(msgpack.packb(fields))

    def receive(self):
        frame = unpack(self._socket.recv(timeout=10))
        assert frame.seq == self.seq
        return frame.type, frame.payload

    def receive_any(self):
        """Of a frame that could not be read far enough to know its number, too."""
        frame = unpack(self._socket.recv(timeout=10))
        return frame.type, frame.payload

    def ask(self, kind, payload):
        self.send(kind, payload)
        return self.receive()

    def raw(self, data):
        self._socket.send(data)
        return unpack(self._socket.recv(timeout=10)).payload["error"]

    def close(self):
        self._opened.close()


@pytest.fixture
def client(serve):
    """Connects to the server of a policy; gives (client, policy)."""
    opened = []

    def start(policy=None, query="", **options):
        policy = policy or Toy()
        opened.append(Client(serve(policy, **options)[1], query))
        return opened[-1], policy

    yield start
    for each in opened:
        each.close()


def test_the_bytes_are_those_of_the_protocol():
    """Written by hand of the protocol's description: a map of four, arrays with text keys."""
    action = np.float32([1.0])
    array = b"\x84\xab__ndarray__\xc3\xa4data\xc4\x04\x00\x00\x80?\xa5dtype\xa3<f4\xa5shape\x91\x01"
    golden = (
        b"\x84\xa4type\xa6action\xa7payload\x81\xa7actions"
        + array
        + b"\xa3seq\x07\xa9timestamp\xcb\x00\x00\x00\x00\x00\x00\x00\x00"
    )
    assert pack(Frame("action", {"actions": action}, 7), 0.0) == golden
    assert unpack(golden).payload["actions"].tolist() == [1.0]


def test_hello_says_what_is_sent_and_asks_for_what_is_read(client):
    harness, _ = client(Toy(state_fields=["a", "b"]))
    kind, hello = harness.ask("hello", {"harness_version": "0.8.0", "protocol_version": 1})
    assert kind == "hello" and hello["protocol_version"] == 1 and hello["capabilities"] == {}
    assert hello["observation_params"] == {"send_wrist_image": True, "send_state": True}
    spec = hello["action_spec"]
    found = {name: (each["dims"], each["format"]) for name, each in spec.items()}
    assert found == {
        "position": (3, "delta_xyz"),
        "rotation": (3, "axis_angle"),
        "gripper": (1, "continuous_01"),
    }
    assert spec["gripper"]["range"] == [0.0, 1.0]
    assert hello["observation_spec"]["state"]["dims"] == 2
    assert "expected 1" in harness.ask("hello", {"protocol_version": 2})[1]["error"]


def test_an_observation_gets_one_action_with_its_number(client):
    harness, policy = client()
    kind, payload = harness.ask("observation", observation(states=np.zeros(8).tolist()))
    assert kind == "action" and payload["actions"].dtype == np.float32
    np.testing.assert_allclose(payload["actions"], [0.01, 0, 0, 0, 0, 0, 0], rtol=1e-6)
    assert policy.asked[0].images["wrist"].mean() == 101
    assert payload["warnings"] == ["the policy does not read state"]
    assert "warnings" not in harness.ask("observation", observation(states=[0.0] * 8))[1]
    assert harness.ask("observation", observation(words="end"))[1]["episode_ends"] is True


def test_a_chunk_is_served_one_action_after_the_other_and_forgotten_with_its_episode(client):
    harness, policy = client(Toy(horizon=3))
    harness.send("episode_start", {"task": {"name": "a"}})

    def second():
        return harness.ask("observation", observation())[1]["actions"][1]

    assert [round(float(second()), 3) for _ in range(4)] == [0.0, 0.01, 0.02, 0.0]
    assert [each.step for each in policy.asked] == [0, 3]
    harness.send("episode_end", {"metrics": {}, "steps": 4, "elapsed_sec": 1.0})
    harness.send("episode_start", {"task": {"name": "b"}})
    assert second() == 0 and policy.asked[-1].step == 0
    assert policy.forgotten.count("connection-1") == 2


@pytest.mark.parametrize(
    ("query", "gripper"),
    [
        ("", 0.0),
        ("?gripper=binary_close_positive", 1.0),
        ("?gripper=binary_close_negative&rotation=euler_xyz", -1.0),
        ("?gripper=binary_close_01", 1.0),
    ],
)
def test_a_closed_gripper_is_what_the_benchmark_asks_for(client, query, gripper):
    harness, _ = client(query=query)
    hello = harness.ask("hello", {"protocol_version": 1})[1]
    assert hello["action_spec"]["gripper"]["format"] in (query + "?gripper=continuous_01")
    assert harness.ask("observation", observation())[1]["actions"][6] == gripper
    assert hello["action_spec"]["rotation"]["format"] == (
        "euler_xyz" if "euler" in query else "axis_angle"
    )


def test_an_unknown_convention_is_refused(client):
    harness, _ = client(query="?gripper=upside_down")
    for kind, payload in (("hello", {"protocol_version": 1}), ("observation", observation())):
        found, said = harness.ask(kind, payload)
        assert found == "error" and "gripper: found 'upside_down', expected one of" in said["error"]


def test_an_error_is_a_frame_and_the_connection_stays(client):
    harness, _ = client()
    assert "found a text frame" in harness.raw("hello")
    assert "no msgpack map" in harness.raw(b"\xc1")
    assert "expected a map with" in harness.raw(msgpack.packb({"type": "hello"}))
    array = {"__ndarray__": True, "data": b"1", "dtype": "|O", "shape": [1]}
    frame = {"type": "observation", "payload": {"states": array}, "seq": 1, "timestamp": 0.0}
    assert "dtype '|O'" in harness.raw(msgpack.packb(frame))
    for payload, message in (
        ({}, "request: no picture of view 'front'"),
        (observation(words="broken"), "RuntimeError: the weights are gone"),
        ({**observation(), "images": {"a": {**png(1), "data": b"?"}, "wrist": png(1)}}, "REFUSED"),
        ({**observation(), "images": {"a": {**png(1), "format": "gif"}}}, "of format 'gif'"),
    ):
        harness.send("observation", payload)
        kind, said = harness.receive_any()
        assert kind == "error" and message in said["error"]
    assert harness.ask("observation", observation())[0] == "action"


def test_raw_and_jpeg_pictures_are_read_too(client):
    harness, policy = client(Toy(views=("front",)))
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, "JPEG", quality=95)
    raw = {"format": "raw", "data": PICTURE.tobytes(), "dtype": "|u1"}
    for picture in (raw, {"format": "jpeg", "data": file.getvalue()}):
        image = {"__image__": True, "shape": [4, 6, 3], **picture}
        payload = {"images": {"primary": image}, "task_description": "go"}
        assert harness.ask("observation", payload)[0] == "action"
        assert policy.asked[-1].images["front"].mean() == pytest.approx(100, abs=1)


def test_the_knobs_are_read_and_set_within_their_range(serve):
    server, url = serve(largest_batch=8)
    assert page(url, "/health") == (200, '{"status":"ok"}')
    config = {"max_batch_size": 8, "max_wait_time": 0.0}
    assert json.loads(page(url, "/config")[1]) == {"applied": {}, "config": config}
    found = json.loads(page(url, "/config?max_batch_size=4&max_wait_time=0.05")[1])
    assert found["applied"] == found["config"] == {"max_batch_size": 4, "max_wait_time": 0.05}
    for query in ("max_batch_size=9", "max_batch_size=two", "max_wait_time=nan", "colour=red"):
        status, text = page(url, f"/config?{query}")
        assert status == 422 and json.loads(text)["errors"]
    assert page(serve(token="secret")[1], "/config")[0] == 401
