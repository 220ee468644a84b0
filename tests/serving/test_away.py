"""A server that goes away: the client says so, and sends nothing twice."""

import socket
import threading
import time

import pytest

from rt2_jax.client import RemotePolicy
from rt2_jax.evaluation.models import remote
from rt2_jax.serving.server import PolicyServer

from .conftest import Toy, seen


def test_a_lost_server_is_told_and_reset_connects_again(caplog):
    first = PolicyServer(Toy(), port=0)
    with first.in_thread() as url:
        policy = RemotePolicy(url, patience_s=20)
        policy.infer(seen())
        port = first.port
    with pytest.raises(ConnectionError, match="call reset"):
        policy.infer(seen())
    with pytest.raises(ConnectionError, match="not connected; call reset"):
        policy.infer(seen())
    toy = Toy()
    back = PolicyServer(toy, port=port)
    context = back.in_thread()

    def later():
        time.sleep(0.5)
        context.__enter__()

    threading.Thread(target=later).start()
    policy.reset("new")
    assert "trying again for" in caplog.text
    assert policy.infer(seen(session="new"))["actions"].shape == (1, 8)
    assert toy.forgotten == ["new"] and len(toy.batches) == 1
    policy.close()
    context.__exit__(None, None, None)


def test_an_evaluation_waits_for_a_server_that_is_still_starting(caplog):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = PolicyServer(Toy(), port=port).in_thread()
    threading.Timer(0.5, context.__enter__).start()
    # It was reached: that of the fixture is another robot.
    with pytest.raises(ValueError, match="of another space"):
        remote(f"ws://127.0.0.1:{port}", patience_s=20)
    assert "no server answers" in caplog.text and "trying again for" in caplog.text
    context.__exit__(None, None, None)


def test_an_answer_that_takes_too_long_ends_the_connection(serve):
    _, url = serve(Toy(seconds=1.0))
    policy = RemotePolicy(url, timeout_s=0.2)
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0.2 s; the connection is closed"):
        policy.infer(seen())
    assert time.monotonic() - begin < 0.9
    with pytest.raises(ConnectionError, match="not connected"):
        policy.infer(seen())


def test_where_no_server_is_the_client_says_so():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError, match=f"ws://127.0.0.1:{port}: no server answers"):
        RemotePolicy(f"ws://127.0.0.1:{port}")
    with pytest.raises(ValueError, match="found 'http://x', expected ws://host:port"):
        RemotePolicy("http://x")


def test_another_version_of_the_protocol_is_refused(serve):
    server, url = serve()
    server.policy_app.service.schema.metadata["protocol_version"] = 2
    with pytest.raises(ValueError, match="speaks protocol version 2, this client 1"):
        RemotePolicy(url)


def test_a_malformed_observation_is_not_sent(serve):
    toy = Toy()
    _, url = serve(toy)
    with RemotePolicy(url) as policy, pytest.raises(ValueError, match="the instruction is empty"):
        policy.infer(seen(instruction=""))
    assert toy.batches == []
