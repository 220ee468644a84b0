"""Who may ask, and how often."""

import hashlib
import json
import logging
import os
import signal
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from rt2_jax.client import PolicyServerError, RemotePolicy
from rt2_jax.serving.keys import ONE_KEY, Key, Keys
from rt2_jax.serving.limits import Limits

from .conftest import Toy, seen
from .test_server import page
from .toy_process import ToyProcess

LONG = "b7c1" * 8


def write(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_file_has_named_tokens_hashes_and_rates(tmp_path):
    digest = hashlib.sha256(b"other").hexdigest()
    lines = f"# the lab\nrobot-1 {LONG}\n\nfleet sha256:{digest} 2.5\n"
    keys = Keys.read(write(tmp_path / "keys", lines))
    assert (keys.find(LONG).name, keys.find(LONG).rate) == ("robot-1", None)
    assert (keys.find("other").name, keys.find("other").rate) == ("fleet", 2.5)
    assert keys.find("") is keys.find(digest) is keys.find(f"sha256:{digest}") is None
    assert LONG not in repr(keys.find(LONG)) and digest not in repr(keys.find("other"))


def test_a_file_with_one_word_is_one_token(tmp_path):
    assert Keys.read(write(tmp_path / "keys", "secret\n")).find("secret").name == ONE_KEY


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found no key, expected name token"),
        ("a b c d", "line 1: found 4 words, expected name token"),
        ("a topsecret\nb", "line 2: found 1 words"),
        ("a topsecret 0", "the third word is no number above 0"),
        ("a topsecret topsecret", "the third word is no number above 0"),
        (f"{LONG * 2} a", "the name must be at most 32"),
        ("a sha256:12", "line 1: sha256: must be followed by 64 hexadecimal digits"),
        ("a topsecret\na other", "a name or a token is there twice"),
        ("a topsecret\nb topsecret", "a name or a token is there twice"),
    ],
)
def test_a_line_that_is_no_key_is_refused_without_saying_it(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        Keys.read(write(tmp_path / "keys", text))
    assert "topsecret" not in str(error.value) and LONG not in str(error.value)


def test_a_file_that_others_may_read_and_a_short_token_are_warned_of(tmp_path, caplog):
    path = write(tmp_path / "keys", "a short")
    path.chmod(0o644)
    Keys.read(path)
    assert "others may read the tokens" in caplog.text and "short enough" in caplog.text
    assert "a short\n" not in caplog.text


def test_a_changed_file_is_read_and_a_broken_one_changes_nothing(tmp_path, caplog):
    path = write(tmp_path / "keys", f"a {LONG}\nb {LONG}2\n")
    keys = Keys.read(path)
    kept, gone = keys.find(LONG), keys.find(LONG + "2")
    write(path, f"a {LONG} 7\nc {LONG}3\n")
    keys.reread_if_changed()
    assert keys.find(LONG) is kept and kept.rate == 7 and keys.find(LONG + "3").name == "c"
    assert keys.find(LONG + "2") is None and not gone.valid and kept.valid
    write(path, "broken line of words")
    keys.reread_if_changed()
    keys.reread_if_changed()
    assert keys.find(LONG) is kept and caplog.text.count("the keys stay as they were") == 1
    path.unlink()
    keys.reread_if_changed()
    assert keys.find(LONG) is kept


def test_a_rate_allows_a_seconds_worth_at_once_and_then_its_pace(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    key = Key("a", b"", rate=4)
    assert [key.take() for _ in range(4)] == [0.0] * 4
    assert key.take() == pytest.approx(0.25)
    now[0] += 0.25
    assert key.take() == 0.0 and key.take() > 0
    slow = Key("b", b"", rate=0.5)
    assert slow.take() == 0.0 and slow.take() == pytest.approx(2)


def test_a_key_over_its_rate_is_busy_and_others_are_not(serve, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = write(tmp_path / "keys", f"slow {LONG} 2\nfree {LONG}2\n")
    _, url = serve(keys=Keys.read(path))
    with RemotePolicy(url, token=LONG) as slow, RemotePolicy(url, token=LONG + "2") as free:
        slow.infer(seen())
        slow.infer(seen())
        with pytest.raises(PolicyServerError, match="BUSY.*: key 'slow' may ask 2 times a second"):
            slow.infer(seen())
        for _ in range(5):
            free.infer(seen(state=None))
        counts = page(url, "/metrics", LONG)[1]
        time.sleep(0.6)
        slow.infer(seen())
    assert 'rt2_key_requests_total{key="slow",outcome="busy"} 1.0' in counts
    assert 'rt2_key_requests_total{key="free",outcome="answered"} 5.0' in counts
    assert LONG not in counts and LONG not in caplog.text


def test_a_post_over_the_rate_is_told_when_to_come_again(serve, tmp_path):
    import urllib.error
    import urllib.request

    _, url = serve(keys=Keys.read(write(tmp_path / "keys", f"slow {LONG} 0.5")))

    def post(token):
        # So large that it is still being sent while it is refused.
        to = urllib.request.Request(url.replace("ws", "http") + "/healthz", b"x" * 3_000_000)
        to.add_header("Authorization", f"Bearer {token}")
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(to, timeout=5)
        return error.value

    assert post("wrong").code == 401 and post("wrong").headers["www-authenticate"] == "Bearer"
    assert post(LONG).code == 405
    again = post(LONG)
    assert again.code == 429 and again.headers["retry-after"] == "2"
    assert json.load(again)["error"].startswith("BUSY: key 'slow'")


def test_every_route_that_is_not_public_asks_for_a_key(serve, tmp_path):
    server, url = serve(token="secret")
    public = {"/healthz", "/readyz", "/health"}
    for route in server.policy_app.app.routes:
        if "GET" in (getattr(route, "methods", None) or ()) and route.path not in public:
            status, text = page(url, route.path)
            # A page without content of the policy may be shown to all; it asks with a key.
            assert status in (401, 404) or "action_space" not in text, route.path
    assert page(url, "/metadata")[0] == page(url, "/metrics")[0] == 401
    with pytest.raises(InvalidStatus, match="403"):
        connect(url + "/anything")
    counts = page(url, "/metrics", "secret")[1]
    assert 'rt2_turned_away_total{reason="key"} 1.0' in counts


def test_connections_of_a_key_are_counted(serve):
    limits = Limits.of_policy(Toy().metadata, connections_per_key=2)
    _, url = serve(token="secret", limits=limits)
    with RemotePolicy(url, token="secret"), RemotePolicy(url, token="secret") as second:
        with pytest.raises(ConnectionError, match="429"):
            RemotePolicy(url, token="secret")
        second.infer(seen())
    time.sleep(0.1)
    with RemotePolicy(url, token="secret") as third:
        third.infer(seen())


@pytest.mark.parametrize("by_signal", [True, False])
def test_a_key_taken_from_the_file_ends_its_connections_while_it_runs(tmp_path, by_signal):
    path = write(tmp_path / "keys", f"a {LONG}\nb {LONG}2\n")
    with ToyProcess(token_file=str(path)) as server:
        with (
            RemotePolicy(server.url, token=LONG) as stays,
            RemotePolicy(server.url, token=LONG + "2") as goes,
        ):
            goes.infer(seen())
            before = path.stat()
            write(path, f"a {LONG}\n")
            if by_signal:
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
                server.signal(signal.SIGHUP)
            time.sleep(1.3)
            with pytest.raises((ConnectionError, ConnectionClosed), match="the key has ended"):
                goes.infer(seen())
            stays.infer(seen())
        with pytest.raises(ConnectionError, match="403"):
            RemotePolicy(server.url, token=LONG + "2")
        assert "read again: 1 keys, 1 gone" in "".join(server.said)
        assert LONG not in "".join(server.said)
