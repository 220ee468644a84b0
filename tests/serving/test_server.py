"""What robots are promised by the server, over real sockets."""

import json
import re
import socket
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from websockets.sync.client import connect

from rt2_jax.actions.policy import Observation
from rt2_jax.client import PolicyServerError, RemotePolicy
from rt2_jax.client.frames import pack, unpack
from rt2_jax.serving.server import check_address, check_port

from .conftest import Toy, seen, together


def page(url, path, token=None):
    request = urllib.request.Request(url.replace("ws", "http", 1) + path)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def raw(url, *frames):
    """What a client of its own writes: the answers to these frames after the metadata."""
    with connect(url, compression=None) as socket:
        socket.recv(timeout=10)
        answers = []
        for frame in frames:
            socket.send(frame)
            answers.append(socket.recv(timeout=10))
        return answers


def request(**changes):
    picture = np.full((4, 6, 3), 50, np.uint8)
    whole = {"images": {"front": picture, "wrist": picture}, "prompt": "go", **changes}
    return {key: value for key, value in whole.items() if value is not None}


def test_an_answer_is_the_policys_with_its_timing(serve):
    _, url = serve()
    with RemotePolicy(url) as policy:
        policy.reset("a")
        result = policy.infer(seen(200, session="a", step=3))
        assert result["actions"].dtype == np.float32
        np.testing.assert_allclose(result["actions"][0, 1], 0.02)
        assert result["session"] == "a" and result["server_timing"]["batch_size"] == 1
        assert policy.metadata["embodiment"] == "toy"


def test_requests_that_wait_share_a_batch_and_each_gets_its_own_answer(serve):
    policy = Toy(seconds=0.15)
    _, url = serve(policy, largest_batch=4)
    clients = [RemotePolicy(url) for _ in range(8)]
    results = together(8, lambda i: clients[i].infer(seen(10 * i, session=f"s{i}")))
    for i, result in enumerate(results):
        np.testing.assert_allclose(result["actions"][0, 1], i / 1000, rtol=1e-5)
    sizes = [len(batch) for batch in policy.batches]
    assert sum(sizes) == 8 and 1 < max(sizes) <= 4


def test_requests_of_one_session_are_never_in_one_batch(serve):
    policy = Toy(seconds=0.1)
    _, url = serve(policy)
    frame = pack(request(session="same"))
    with RemotePolicy(url) as other:
        together(5, lambda i: raw(url, frame) if i else other.infer(seen(session="other")))
    assert all(batch.count("same") <= 1 for batch in policy.batches)
    assert sum(map(len, policy.batches)) == 5


def test_an_answer_that_would_be_late_is_refused_and_later_ones_are_not(serve):
    policy = Toy(seconds=0.2)
    _, url = serve(policy)
    frame = pack(request(budget_ms=80))
    assert re.search(r"not ready after \d+ ms; the budget was 80 ms", raw(url, frame)[0])
    time.sleep(0.15)  # now the model is free again
    refused = raw(url, frame)[0]
    assert re.match(r"DEADLINE: waited \d+ ms, and an answer takes \d+ ms", refused)
    with RemotePolicy(url, budget_ms=80) as robot, RemotePolicy(url) as patient:
        policy.seconds = 0.0
        patient.infer(seen())  # a fast answer shows that it can be fast
        assert robot.infer(seen())["actions"].shape == (1, 8)


def test_the_age_of_an_observation_counts(serve):
    _, url = serve(Toy(seconds=0.05))
    answers = raw(
        url,
        pack(request(budget_ms=5000, age_ms=4990)),
        pack(request(budget_ms=5000, age_ms=10)),
    )
    assert answers[0].startswith("DEADLINE") and "budget was 10 ms" in answers[0]
    assert isinstance(answers[1], bytes)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("text", "found a text frame, expected a binary msgpack frame"),
        (b"\xc1garbage", "that are no msgpack map"),
        (pack([1, 2]), "found list, expected a map"),
        (pack(request(prompt=None)), "no 'prompt'; found"),
        (pack(request(prompt=" ")), "the instruction is empty"),
        (pack(request(images=None)), "no picture of view 'front'; found [], expected ['front',"),
        (pack(request(images=[1])), "images: found list, expected a map from view"),
        (pack(request(images={"front": np.zeros((4, 6, 3)), "wrist": 0})), "must be a uint8 array"),
        (pack(request(state=np.array([np.nan]))), "the state is not finite at index 0"),
        (pack(request(state="fast")), "state: found <U4, expected numbers"),
        (pack(request(schema_hash="other")), "another policy is served than the client connected"),
        (pack(request(budget_ms=-1)), "budget_ms: found -1, expected milliseconds from 0"),
        (
            pack({"images": {b"__ndarray__": True, b"data": b"1", b"dtype": "|u1", b"shape": [2]}}),
            "an array of uint8 and shape [2] with 1 bytes, expected 2",
        ),
        (pack(request(prompt="unreadable")), "observation: cannot be read"),
    ],
)
def test_a_bad_request_is_refused_and_the_connection_stays(serve, frame, message):
    _, url = serve()
    refusal, answer = raw(url, frame, pack(request()))
    assert refusal.startswith("REFUSED: ") and message in refusal
    assert unpack(answer)["actions"].shape == (1, 8)


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        ("nan", "is nan, expected a finite number"),
        ("double", "'actions' must be a float32 array, found an array of float64"),
        ("broken", "RuntimeError: the weights are gone"),
        ("stop", "StopIteration"),
        ("unsendable", "the policy's answer cannot be sent: set cannot be sent"),
    ],
)
def test_a_policy_that_fails_never_gives_an_action_and_goes_on(serve, instruction, message):
    _, url = serve()
    with RemotePolicy(url) as policy:
        with pytest.raises(PolicyServerError, match=rf"FAILED \(seq 0\): .*{message}"):
            policy.infer(seen(instruction=instruction))
        assert policy.infer(seen())["actions"][0, 0] == 1


def test_a_request_at_fault_does_not_harm_those_in_its_batch(serve):
    policy = Toy(seconds=0.1)
    _, url = serve(policy)
    clients = [RemotePolicy(url) for _ in range(4)]
    words = ["go", "broken", "go", "go"]
    results = together(4, lambda i: clients[i].infer(seen(i, words[i], session=str(i))))
    assert isinstance(results[1], PolicyServerError)
    assert all(result["actions"].shape == (1, 8) for result in results[:1] + results[2:])
    assert max(map(len, policy.batches)) > 1


def test_what_nobody_reads_is_said_once(serve):
    _, url = serve()
    frames = [pack(request(gripper=1, state=np.zeros(2, np.float32)))] * 2
    first, second = (unpack(answer) for answer in raw(url, *frames))
    assert first["warnings"] == [
        "nobody reads 'gripper' of the request",
        "the policy does not read state",
    ]
    assert second["warnings"] == []


def test_openpis_names_of_cameras_and_state_are_understood(serve):
    _, url = serve()
    picture = np.full((4, 6, 3), 90, np.uint8)
    frame = pack(
        {
            "observation/image": picture,
            "observation/wrist_image": picture,
            "observation/state": np.zeros(8),
            "prompt": b"go",
        }
    )
    answer = unpack(raw(url, frame)[0])
    np.testing.assert_allclose(answer["actions"][0, 1], 0.009, rtol=1e-5)


def test_an_episode_of_a_connection_is_forgotten_when_it_ends(serve):
    policy = Toy()
    _, url = serve(policy)
    raw(url, pack(request()), pack({"reset": "mine"}))
    with RemotePolicy(url) as other:
        other.infer(seen())  # the server has seen the first one leave
    assert "mine" in policy.forgotten and "connection-1" in policy.forgotten


def test_a_token_is_asked_for_in_both_forms(serve, capsys):
    _, url = serve(token="secret")
    for header in ("Bearer secret", "Api-Key secret"):
        with connect(url, additional_headers={"Authorization": header}) as socket:
            assert "action_space" in unpack(socket.recv(timeout=10))
    for token in (None, "guess"):
        with pytest.raises(ConnectionError, match="403, a token is needed, or another one"):
            RemotePolicy(url, token=token)
    assert page(url, "/metadata")[0] == page(url, "/metrics", "guess")[0] == 401
    assert page(url, "/healthz") == (200, "OK\n")
    assert page(url, "/metadata", "secret")[0] == 200
    assert "ERROR" not in capsys.readouterr().err, "being turned away is no error of the server"


def test_pictures_of_a_policy_without_camera_size_are_not_squeezed_in_silence(serve):
    _, url = serve(Toy(image_size=[64, 96]))
    with RemotePolicy(url) as policy:
        assert policy.infer(seen())["warnings"] == []  # 4 x 6
        images = {
            "front": np.zeros((10, 30, 3), np.uint8),
            "wrist": np.zeros((20, 30, 3), np.uint8),
        }
        (warning,) = policy.infer(Observation(images, "go"))["warnings"]
    assert warning.startswith("images/front: 10 x 30 pixels are squeezed into 64 x 96, as they are")
    _, url = serve(Toy(image_size=[64, 64], camera_size=[4, 6]))
    with RemotePolicy(url) as policy:
        assert policy.infer(seen())["warnings"] == []  # the engine checks it


def test_a_state_outside_of_what_training_saw_is_told_with_its_range(serve):
    class Outside(Toy):
        def _answer(self, observation):
            return {**super()._answer(observation), "state_outside": ("x",)}

    _, url = serve(Outside(state_fields=["x"], state_ranges={"x": [0.1, 0.25]}))
    with RemotePolicy(url) as policy:
        warnings = policy.infer(seen(state=np.ones(1, np.float32)))["warnings"]
    assert "state 'x' is outside the range that training saw, 0.1 to 0.25" in warnings


def test_the_pages_say_what_is_served_and_how_it_goes(serve):
    server, url = serve()
    assert page(url, "/readyz") == (200, "OK\n")
    status, text = page(url, "/metadata")
    metadata = json.loads(text)
    assert status == 200 and metadata == page_metadata(url)
    raw(url, pack(request()), pack(request(prompt=None)))
    counts = page(url, "/metrics")[1]
    assert 'rt2_requests_total{outcome="answered"} 1.0' in counts
    assert 'rt2_requests_total{outcome="refused"} 1.0' in counts
    server.policy_app.service.draining = True
    assert page(url, "/readyz")[0] == 503
    server.policy_app.service.draining = False


def page_metadata(url):
    with RemotePolicy(url) as policy:
        return policy.metadata


def test_a_server_that_ends_answers_what_is_under_way_and_takes_nothing_new(serve):
    policy = Toy(seconds=0.5)
    server, url = serve(policy)
    robot = RemotePolicy(url)

    def ask(i):
        if i == 0:
            return robot.infer(seen())
        while not policy.batches:
            pass
        server.handle_exit(15, None)
        return RemotePolicy(url)

    answered, refused = together(2, ask)
    assert answered["actions"].shape == (1, 8)
    assert isinstance(refused, ConnectionError)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.7", "::"])
def test_other_machines_need_a_token(host):
    with pytest.raises(ValueError, match="give a --token-file, or --insecure"):
        check_address(host, None, False)
    check_address(host, "secret", False)
    check_address(host, None, True)
    for own in ("127.0.0.1", "localhost", "::1"):
        check_address(own, None, False)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_taken_port_is_told_before_anything_is_compiled(host):
    check_port(host, 0)
    with socket.socket() as taken:
        taken.bind((host, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"{host}:{port} cannot be bound: .* in use"):
            check_port(host, port)
    check_port(host, port)
