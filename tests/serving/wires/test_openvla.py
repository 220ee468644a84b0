"""`/act` as OpenVLA's, OpenVLA-OFT's, MolmoAct2's and GR00T's clients use it."""

import base64
import http.client
import json
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest

from rt2_jax.actions.space import rt2_action_space
from rt2_jax.serving.wires.json_arrays import dumps, loads

from ..conftest import Toy

PICTURE = np.full((4, 6, 3), 100, np.uint8)
ASK = {"image": PICTURE, "instruction": "go"}


def post(url, body, path="/act", **headers):
    """Status, headers and body; sent without a Content-Type, as inspect-robots does."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
    text = body if isinstance(body, (str, bytes)) else dumps(body)
    connection.request("POST", path, text, headers)
    answer = connection.getresponse()
    data = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, data


@pytest.fixture
def one_camera(serve):
    """A policy of one view, and the URL of its server."""
    policy = Toy(views=("front",))
    return policy, serve(policy)[1]


def test_the_bytes_are_those_of_the_protocol():
    """Written by hand of what json-numpy 2.1.1 sends and OpenVLA's server answers."""
    body = (
        '{"image": {"__numpy__": "AQIDBAUG", "dtype": "|u1", "shape": [1, 2, 3]}, '
        '"instruction": "go", "unnorm_key": null}'
    )
    image = np.uint8([[[1, 2, 3], [4, 5, 6]]])
    assert dumps({"image": image, "instruction": "go", "unnorm_key": None}) == body
    np.testing.assert_array_equal(loads(body)["image"], image)
    assert dumps(np.float64([1.0])) == '{"__numpy__": "AAAAAAAA8D8=", "dtype": "<f8", "shape": [1]}'
    assert loads('{"__numpy__": "AACAPw==", "dtype": "<f4", "shape": []}') == np.float32(1)


def test_a_plain_request_gets_seven_numbers(one_camera):
    _, url = one_camera
    status, headers, data = post(url, ASK)
    action = loads(data)
    assert status == 200 and action.dtype == np.float64 and action.shape == (7,)
    np.testing.assert_allclose(action, [0.01, 0, 0, 0, 0, 0, 0], rtol=1e-6)
    assert headers["x-rt2-episode-ends"] == "0" and headers["x-rt2-warnings"] is None


def test_the_end_of_an_episode_stands_in_a_header_and_nothing_moves(one_camera):
    _, url = one_camera
    _, headers, data = post(url, {**ASK, "instruction": "end"})
    assert headers["x-rt2-episode-ends"] == "1" and loads(data).tolist() == [0.0] * 7


def test_a_body_that_is_encoded_twice_is_answered_twice_encoded(one_camera):
    _, url = one_camera
    text = json.loads(post(url, {"encoded": dumps(ASK)})[2])
    assert isinstance(text, str) and loads(text).shape == (7,)
    status, _, data = post(url, {"encoded": dumps(ASK), "image": 1})
    assert status == 400 and "expected it alone" in json.loads(data)["error"]


def test_ofts_names_get_a_list_of_steps(serve):
    policy = Toy(horizon=3, state_fields=["a", "b"])
    _, url = serve(policy)
    state = np.float64([1, 2])
    body = {
        "full_image": PICTURE,
        "my_wrist_camera": PICTURE + 1,
        "state": state,
        "instruction": "go",
    }
    status, headers, data = post(url, body)
    steps = loads(data)
    assert status == 200 and len(steps) == 3 and steps[2][1] == pytest.approx(0.02)
    assert headers["x-rt2-episode-ends"] == "0,0,0"
    np.testing.assert_array_equal(policy.asked[0].images["wrist"], PICTURE + 1)
    assert policy.asked[0].state.tolist() == [1, 2]


def test_cameras_at_the_top_get_a_chunk_and_its_step(serve):
    _, url = serve(Toy(views=("top", "left", "right"), horizon=2))
    cameras = {"top_cam": PICTURE, "left_cam": PICTURE, "right_cam": PICTURE}
    data = loads(post(url, {**cameras, "instruction": "go", "num_steps": 10})[2])
    assert data["actions"].shape == (2, 7) and data["dt_ms"] == 200.0
    assert data["episode_ends"] == [False, False]
    assert data["warnings"] == ["nobody reads 'num_steps' of the request"]


def test_a_key_of_statistics_must_be_known(serve):
    _, url = serve(Toy(views=("front",), task="pick", statistics_keys=["toy/toy"]))
    assert post(url, {**ASK, "unnorm_key": "pick"})[0] == 200
    status, _, data = post(url, {**ASK, "unnorm_key": "bridge_orig"})
    assert (
        status == 422 and "found 'bridge_orig', expected one of ['pick', 'toy', 'toy/toy']" in data
    )


def test_of_several_tasks_the_key_the_body_or_the_address_chooses(serve):
    closed = rt2_action_space(
        "closed",
        translation_bound_m=0.05,
        rotation_bound_rad=0.25,
        gripper_polarity="high_is_closed",
        control_rate_hz=10,
    )
    arm = Toy(views=("front",), embodiment="arm", action_space=closed.to_json())
    policies = {"pick": Toy(views=("front",)), "wave": arm}
    _, url = serve(policies)

    def gripper(path="/act", **fields):
        status, _, data = post(url, {**ASK, **fields}, path)
        return loads(data)[6] if status == 200 else (status, json.loads(data)["error"])

    assert gripper(unnorm_key="toy") == gripper(task="pick") == 0
    assert gripper(unnorm_key="closed") == gripper("/act?embodiment=arm") == 1
    assert gripper()[0] == gripper(task="pick", unnorm_key="arm")[0] == 422
    assert "several tasks are served" in gripper()[1]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("{", 400, "that are no such JSON"),
        ("[" * 100_000, 400, "nested too deep"),
        ("[]", 400, "found list, expected an object with 'image'"),
        ({"instruction": "go"}, 422, "REFUSED: request: no picture of view 'front'"),
        ({"image": PICTURE}, 422, "no 'prompt'"),
        ({**ASK, "image": [[1]]}, 422, "must be a uint8 array, found list"),
        ({**ASK, "budget_ms": -1}, 422, "budget_ms: found -1"),
        ({**ASK, "session": ["a"]}, 422, "session: expected a name"),
        ({**ASK, "instruction": "broken"}, 500, "FAILED: RuntimeError: the weights are gone"),
        ({**ASK, "budget_ms": 0}, 504, "DEADLINE"),
        ('{"image": {"__numpy__": "AA==", "dtype": "|O", "shape": [1]}}', 400, "dtype '|O'"),
        (
            '{"image": {"__numpy__": "AA==", "dtype": "|u1", "shape": [2]}}',
            400,
            "1 bytes, expected 2",
        ),
        ('{"image": {"__numpy__": "*", "dtype": "|u1", "shape": [1]}}', 400, "no base64"),
        ('{"image": {"__numpy__": "AA==", "dtype": "|u1", "shape": [-1]}}', 400, "whole numbers"),
    ],
)
def test_what_is_wrong_has_a_status_and_a_reason(one_camera, body, status, message):
    found, _, data = post(one_camera[1], body)
    assert found == status and message in json.loads(data)["error"]
    assert post(one_camera[1], ASK)[0] == 200


def test_a_body_that_is_too_large_is_not_read(one_camera, serve):
    server, url = serve(Toy(views=("front",)))
    object.__setattr__(server.policy_app.service.limits, "body_bytes", 1000)
    status, _, data = post(url, b" " * 2000)
    assert status == 413 and json.loads(data)["error"].startswith("REFUSED: found a body of 2000")


def test_whoever_asks_for_openvlas_errors_gets_them(one_camera):
    status, _, data = post(one_camera[1], "{", path="/act?compat=error200")
    assert (status, json.loads(data)) == (200, "error")


def test_a_session_has_one_request_at_a_time_and_those_without_a_name_any(serve):
    policy = Toy(seconds=0.3, views=("front",))
    _, url = serve(policy)

    def together(body, **headers):
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(post(url, body, **headers)[0]))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sorted(found)

    assert together({**ASK, "session": "a"}) == [200, 429]
    assert together(ASK, **{"X-RT2-Session": "a"}) == [200, 429]
    assert together(ASK) == [200, 200]
    assert {each.session for each in policy.asked} >= {"a", "http-1", "http-2"}
    end = time.monotonic() + 10
    while "http-2" not in policy.forgotten and time.monotonic() < end:
        time.sleep(0.01)
    assert {"http-1", "http-2"} <= set(policy.forgotten) and "a" not in policy.forgotten


def test_it_says_when_it_is_ready_and_when_it_ends(one_camera, serve):
    server, url = serve(Toy(views=("front",)))
    place = urlsplit(url)

    def get(path):
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
        connection.request("GET", path)
        return connection.getresponse().status

    assert get("/act") == get("/health") == 200
    server.policy_app.service.draining = True
    assert get("/act") == get("/health") == post(url, ASK)[0] == 503
    server.policy_app.service.draining = False


def test_a_token_is_asked_for(serve):
    _, url = serve(Toy(views=("front",)), token="secret")
    status, _, data = post(url, ASK)
    assert status == 401 and json.loads(data)["error"].startswith("REFUSED: a token is needed")
    assert post(url, ASK, Authorization="Bearer secret")[0] == 200


def test_pictures_in_json_are_read_as_they_were_written():
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    found = loads(dumps({"a": picture}))["a"]
    np.testing.assert_array_equal(found, picture)
    assert found.flags.writeable and base64.b64encode(picture.tobytes()).decode() in dumps(picture)
