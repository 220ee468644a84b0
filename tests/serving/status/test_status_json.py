"""What the status page is told, who may read it, and what it may do in a browser."""

import base64
import io
import json
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from rt2_jax.client import PolicyServerError, RemotePolicy
from rt2_jax.serving.batching import Answer
from rt2_jax.serving.exchange import Exchange
from rt2_jax.serving.requests import Request
from rt2_jax.serving.status import LiveSessions
from rt2_jax.serving.status.traffic import Traffic

from ..conftest import seen


def fetch(url, path, token=None, body=None, **headers):
    """Status, headers and body of a page."""
    request = urllib.request.Request(url.replace("ws", "http", 1) + path, body, headers)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def numbers(url):
    """The numbers, which are made anew every 0.4 s."""
    time.sleep(0.45)
    return json.loads(fetch(url, "/status.json")[2])


def picture(value=100):
    file = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def question(url, token=None, kind="application/json", **body):
    status, _, text = fetch(
        url, "/status/try", token, json.dumps(body).encode(), **{"content-type": kind}
    )
    return status, json.loads(text)


def exchanged(session, outcome="answered", image=None, **fields):
    """What a service notes of a request."""
    exchange = Exchange(f"connection-{session}", session=str(session), instruction="go", **fields)
    observation = seen() if image is None else seen().__class__({"front": image}, "go")
    exchange.request = Request(observation, None, None, ())
    if outcome == "answered":
        result = {"actions": np.zeros((1, 8), np.float32)}
        exchange.answer = Answer(result, 0.001, 0.01, 2)
    return exchange.end(outcome)


def test_a_session_is_told_with_its_frame_instruction_action_and_times(serve):
    _, url = serve()
    with RemotePolicy(url) as robot:
        robot.infer(seen(200, "push the cube", session="arm 1", step=7))
        told = numbers(url)
    assert told["server"]["working"] and not told["server"]["draining"]
    assert told["server"]["connections"] == 1 and told["server"]["counts"] == {"answered": 1}
    (session,) = told["sessions"]
    assert (session["name"], session["instruction"]) == ("arm 1", "push the cube")
    assert (session["outcome"], session["step"], session["left"]) == ("answered", 7, False)
    assert session["views"] == {"front": [4, 6], "wrist": [4, 6]}
    assert session["answer"]["actions"] == [[1, 0.02, 0, 0, 0, 0, 0, 0]]
    assert session["answer"]["batch_size"] == 1 and 0 <= session["answer"]["age_s"] < 10
    assert told["traffic"]["outcomes"]["answered"] == 1 == told["traffic"]["per_second"][-1][0]
    assert told["traffic"]["latency"]["total"]["p50"] >= told["traffic"]["latency"]["infer"]["p50"]
    path = f"/status/frames/{session['id']}/wrist"
    status, headers, small = fetch(url, path)
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    assert abs(np.asarray(Image.open(io.BytesIO(small))).astype(int) - 200).max() <= 2
    _, headers, whole = fetch(url, f"{path}?whole")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(whole))), 200)
    assert fetch(url, f"/status/frames/{session['id']}/back")[0] == 404
    assert fetch(url, "/status/frames/999/front")[0] == 404


def test_a_refused_request_and_a_robot_that_left_are_told(serve):
    _, url = serve()
    with RemotePolicy(url) as robot:
        robot.infer(seen(session="a"))
        with pytest.raises(PolicyServerError):
            robot.infer(seen(instruction="unreadable", session="a"))
    told = numbers(url)
    (session,) = told["sessions"]
    assert session["left"] and session["outcome"] == "refused"
    assert session["error"] == "observation: cannot be read"
    assert session["instruction"] == "unreadable" and session["counts"]["answered"] == 1
    assert session["answer"]["actions"][0][0] == 1  # the last one that there was
    assert told["traffic"]["outcomes"]["refused"] == 1


def test_the_page_needs_the_key_for_everything_but_its_own_files(serve):
    _, url = serve(token="secret")
    for path in ("/", "/status", "/status/main.js", "/status/page.css", "/status/icon.svg"):
        assert fetch(url, path)[0] == 200
    for path in ("/status.json", "/status/frames/1/front", "/metadata"):
        assert fetch(url, path)[0] == 401
        assert fetch(url, path, "wrong")[0] == 401
    assert fetch(url, "/status.json", "secret")[0] == 200
    body = json.dumps({"instruction": "go"}).encode()
    assert fetch(url, "/status/try", None, body, **{"content-type": "application/json"})[0] == 401
    assert fetch(url, "/status/passwd")[0] == fetch(url, "/status/..%2froutes.py")[0] == 404


def test_a_browser_may_load_nothing_but_the_pages_own_files(serve):
    _, url = serve()
    for path in ("/", "/status.json", "/status/main.js", "/status/frames/1/front"):
        headers = fetch(url, path)[1]
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
    page = fetch(url, "/")[2].decode()
    assert "http:" not in page and "https:" not in page and "style=" not in page


def test_without_the_page_there_is_none_and_robots_are_served(serve):
    _, url = serve(status=False)
    for path in ("/", "/status.json", "/status/main.js"):
        assert fetch(url, path)[0] == 404
    with RemotePolicy(url) as robot:
        assert robot.infer(seen())["actions"].shape == (1, 8)


def test_robots_connect_on_the_pages_paths_too(serve):
    _, url = serve()
    for path in ("", "/status", "/status.json"):
        with RemotePolicy(url + path) as robot:
            assert robot.infer(seen())["actions"].shape == (1, 8)


def test_a_question_of_the_form_is_answered_as_an_episode_of_its_own(serve):
    server, url = serve()
    images = {"front": picture(200), "wrist": picture()}
    status, reply = question(url, instruction="go", images=images)
    assert status == 200 and reply["outcome"] == "answered"
    assert reply["answer"]["actions"][0][1] == pytest.approx(0.02)
    status, reply = question(url, instruction="go", images=images, state=[1, 2])
    assert reply["warnings"] == ["the policy does not read state"]
    told = numbers(url)["sessions"]
    assert [(each["name"], each["counts"]) for each in told] == [
        ("try-it", {"answered": 2, "reset": 2})
    ]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"instruction": "go", "images": {"front": picture()}}, 422, "no picture of view 'wrist'"),
        ({"instruction": "go", "images": {"front": "!"}}, 422, "images/front: found no base64"),
        (
            {"instruction": "go", "images": {"front": "aGk=", "wrist": picture()}},
            *(422, "expected a whole JPEG or PNG"),
        ),
        ({"instruction": "go", "images": 3}, 422, "expected an object with instruction, images"),
        ({"images": {"front": picture(), "wrist": picture()}}, 422, "no 'prompt'"),
        (
            {"instruction": "broken", "images": {"front": picture(), "wrist": picture()}},
            500,
            "the weights are gone",
        ),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(serve, body, status, message):
    _, url = serve()
    found, reply = question(url, **body)
    assert found == status and message in reply["error"] and "answer" not in reply


def test_another_sites_form_cannot_ask(serve):
    _, url = serve()
    status, reply = question(url, kind="text/plain", instruction="go")
    assert status == 415 and "application/json" in reply["error"]


def test_only_the_newest_sessions_and_so_many_frames_are_kept():
    live = LiveSessions(most=3, frame_bytes=2 * 48)
    frames = [np.full((4, 4, 3), i, np.uint8) for i in range(5)]
    for i in range(5):
        live.note(exchanged(i, image=frames[i]))
    live.note(exchanged(3, image=frames[0]))
    assert [each.name for each in live.sessions()] == ["3", "4", "2"]
    assert [len(each.frames) for each in live.sessions()] == [1, 1, 0]
    assert live.sessions()[0].frames["front"] is frames[0]  # it was not copied
    live.note(exchanged(2, image=np.zeros((40, 40, 3), np.uint8)))  # more than all may hold
    assert [len(each.frames) for each in live.sessions()] == [1, 0, 0]


def test_what_clients_send_is_cut_before_it_is_kept_or_told():
    live = LiveSessions()
    exchange = exchanged("s" * 10_000)
    exchange.instruction = "i" * 10_000
    live.note(exchange)
    exchange = exchanged("odd", outcome="refused")
    exchange.instruction, exchange.error = np.zeros(1000), "e" * 10_000
    exchange.warnings = ("w" * 10_000,) * 1000
    live.note(exchange)
    told = [each.to_json(live.now()) for each in live.sessions()]
    assert len(json.dumps(told)) < 8000
    assert told[0]["instruction"] == "ndarray" and told[1]["instruction"].endswith("i…")


def test_requests_without_a_session_share_one_card():
    live = LiveSessions()
    for i in range(5):
        live.note(exchanged(f"http-{i}"))
    live.note(exchanged("http-robot"))
    assert [each.name for each in live.sessions()] == ["http-robot", "http"]


def test_the_last_minute_is_counted_and_older_requests_are_forgotten():
    traffic = Traffic(most=8)
    traffic.add(900.0, "answered", 0.001, 0.002, 0.003, 1)
    for end in (941.0, 999.5, 999.6):
        traffic.add(end, "answered", 0.001, 0.02, 0.021, 2)
    traffic.add(999.7, "late")
    told = traffic.summary(1000.0)
    counted = {name: count for name, count in told["outcomes"].items() if count}
    assert counted == {"answered": 3, "late": 1} and "unsafe" in told["outcomes"]
    assert told["per_second"][-1] == [2, 1] and sum(good for good, _ in told["per_second"]) == 3
    assert told["batches"] == [[2, 2]]
    infer, edges = told["latency"]["infer"], told["edges_ms"]
    assert infer["p50"] == infer["max"] == 20.0
    (bin_,) = np.flatnonzero(infer["histogram"])
    assert edges[bin_] <= 20 < edges[bin_ + 1] and infer["histogram"][bin_] == 3
    for _ in range(20):
        traffic.add(1000.0, "answered", 0.0, 20.0, 20.0, 1)
    told = traffic.summary(1001.0)
    assert told["window_s"] == 1.0 and told["outcomes"]["answered"] == 8
    assert told["latency"]["total"]["histogram"][-1] == 8
