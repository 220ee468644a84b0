"""What lies between robot and server fails: late, swapped and lost frames move no robot."""

import asyncio
import socket
import struct
import threading
import time

import numpy as np
import pytest
from websockets.sync.server import serve as serve_frames
from websockets.utils import accept_key

from rt2_jax.actions.policy import Observation
from rt2_jax.client import (
    AsyncRemotePolicy,
    DeadlineExceeded,
    RemotePolicy,
    RequestSuperseded,
    ServerBusy,
    StaleAnswer,
)
from rt2_jax.client.frames import pack, unpack

from .conftest import Toy, seen
from .frame_proxy import FrameProxy


@pytest.fixture
def proxy(serve):
    """A proxy before a server, and its URL."""
    _, url = serve()
    between = FrameProxy(url)
    with between.running() as address:
        yield between, address


def moved(result):
    return round(float(result["actions"][0, 1]), 4)


def delay(seconds):
    def later(frame):
        time.sleep(seconds)
        return [frame]

    return later


def test_an_answer_after_its_budget_is_not_used_and_not_taken_for_the_next(proxy):
    between, url = proxy
    with RemotePolicy(url) as policy:
        between.on_answer = delay(0.15)
        begin = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="the budget was 50 ms; no answer has come"):
            policy.infer(seen(10), budget_ms=50)
        assert time.monotonic() - begin < 0.12  # it does not wait for what it will not use
        between.on_answer = delay(0)
        assert moved(policy.infer(seen(200))) == 0.02
        assert len(between.asked) == 2


def test_nothing_is_sent_while_the_answer_before_is_not_there(proxy):
    between, url = proxy
    with RemotePolicy(url) as policy:
        between.on_answer = delay(0.3)
        with pytest.raises(DeadlineExceeded, match="no answer has come"):
            policy.infer(seen(), budget_ms=40)
        for _ in range(2):
            with pytest.raises(DeadlineExceeded, match="not sent: the server is still at an"):
                policy.infer(seen(), budget_ms=40)
        assert len(between.asked) == 1  # no line of old pictures builds up


def test_the_budget_counts_from_when_the_picture_was_taken(proxy):
    between, url = proxy
    with RemotePolicy(url, budget_ms=500) as policy:
        taken = time.monotonic() - 0.2
        policy.infer(seen(captured_at=taken))
        sent = unpack(between.asked[-1])
        assert 200 <= sent["age_ms"] < 450 and sent["budget_ms"] == 500
        with pytest.raises(DeadlineExceeded, match="the budget was 500 ms; nothing was sent"):
            policy.infer(seen(captured_at=taken - 0.4))
        assert len(between.asked) == 1
        policy.infer(seen(captured_at=taken - 0.4), budget_ms=5000)
        with pytest.raises(ValueError, match="captured_at is .* ahead of time.monotonic"):
            policy.infer(seen(captured_at=time.time() + 1e9))


def swapping():
    """Two answers are passed on together, the second one first."""
    kept = []

    def swap(frame):
        kept.append(frame)
        return kept[::-1] if len(kept) == 2 else []

    return swap


def test_an_older_answer_that_comes_after_a_newer_one_is_not_used(proxy):
    between, url = proxy
    between.on_answer = swapping()

    async def drive():
        async with AsyncRemotePolicy(url) as policy:
            older = asyncio.ensure_future(policy.infer(seen(10, session="a")))
            await asyncio.sleep(0)
            newer = asyncio.ensure_future(policy.infer(seen(20, session="a")))
            assert moved(await newer) == 0.002
            with pytest.raises(StaleAnswer, match="request 1 was answered before request 0"):
                await older
            between.on_answer = lambda frame: [frame]
            assert moved(await policy.infer(seen(30))) == 0.003  # the old frame was dropped

    asyncio.run(drive())


def test_sessions_of_one_connection_do_not_make_each_other_stale(proxy):
    between, url = proxy
    between.on_answer = swapping()

    async def drive():
        async with AsyncRemotePolicy(url) as policy:
            both = await asyncio.gather(
                policy.infer(seen(10, session="a")), policy.infer(seen(20, session="b"))
            )
            assert [moved(each) for each in both] == [0.001, 0.002]

    asyncio.run(drive())


def test_answers_of_the_episode_before_are_not_used(proxy):
    between, url = proxy
    between.on_answer = delay(0.1)

    async def drive():
        async with AsyncRemotePolicy(url) as policy:
            before = asyncio.ensure_future(policy.infer(seen(session="a")))
            await asyncio.sleep(0.02)
            await policy.reset("a")
            with pytest.raises(StaleAnswer, match="its episode was reset"):
                await before

    asyncio.run(drive())


@pytest.mark.parametrize("reconnect", ["episode", "always"])
def test_a_request_that_is_lost_is_never_sent_again(proxy, reconnect):
    between, url = proxy
    with RemotePolicy(url, patience_s=5, reconnect=reconnect) as policy:
        between.on_answer = lambda frame: between.cut() or []
        with pytest.raises(ConnectionError, match="was not sent again"):
            policy.infer(seen(10))
        between.on_answer = lambda frame: [frame]
        if reconnect == "episode":
            with pytest.raises(ConnectionError, match="not connected; call reset"):
                policy.infer(seen(20))
            policy.reset()
        assert moved(policy.infer(seen(20))) == 0.002
        pictures = [unpack(each)["images"] for each in between.asked if b"images" in each]
        assert [each["front"].mean() for each in pictures] == [10, 20]


def test_all_requests_in_flight_end_with_the_connection_and_the_next_goes_to_a_new_one(proxy):
    between, url = proxy
    between.on_answer = lambda frame: between.cut() or []

    async def drive():
        async with AsyncRemotePolicy(url, reconnect="always") as policy:
            lost = await asyncio.gather(
                policy.infer(seen(10)), policy.infer(seen(20)), return_exceptions=True
            )
            assert all(isinstance(each, ConnectionError) for each in lost)
            between.on_answer = lambda frame: [frame]
            assert moved(await policy.infer(seen(30))) == 0.003

    asyncio.run(drive())


def test_connecting_again_takes_no_longer_than_the_budget(serve):
    server, url = serve()
    between = FrameProxy(url)
    with between.running() as address:
        policy = RemotePolicy(address, patience_s=20, reconnect="always", budget_ms=150)
        policy.infer(seen())
    with pytest.raises(ConnectionError):
        policy.infer(seen())
    begin = time.monotonic()
    with pytest.raises((ConnectionError, DeadlineExceeded)):
        policy.infer(seen())
    assert time.monotonic() - begin < 1


def test_jpeg_reaches_the_policy_as_a_picture(proxy):
    between, url = proxy
    with RemotePolicy(url, pictures="jpeg:95") as policy:
        assert abs(moved(policy.infer(seen(200))) - 0.02) <= 0.0002
    pictures = unpack(between.asked[-1])["images"]
    assert all(each[:2] == b"\xff\xd8" for each in pictures.values())  # JPEG's first bytes


def test_another_policy_in_the_middle_of_an_episode_is_refused(serve):
    server, url = serve()
    between = FrameProxy(url)
    with between.running() as address:
        policy = RemotePolicy(address, reconnect="always")
        policy.infer(seen())
        between.cut()
        server.policy_app.service.schema.metadata["schema_hash"] = "of another"
        with pytest.raises(ConnectionError):
            policy.infer(seen())
        with pytest.raises(ValueError, match="another policy than before .* middle of an episode"):
            policy.infer(seen())
        policy.reset()  # a new episode may have a new policy
        policy.close()


def test_of_several_requests_in_flight_the_server_answers_the_newest(serve):
    toy = Toy(seconds=0.2)
    _, url = serve(toy)

    async def drive():
        async with AsyncRemotePolicy(url) as policy:
            asked = []
            for value in (10, 20, 30):
                asked.append(asyncio.ensure_future(policy.infer(seen(value, session="a"))))
                await asyncio.sleep(0.03)
            return await asyncio.gather(*asked, return_exceptions=True)

    begun, waiting, newest = asyncio.run(drive())
    assert moved(begun) == 0.001 and moved(newest) == 0.003
    assert isinstance(waiting, RequestSuperseded)
    assert len(toy.batches) == 2


def scripted(answer):
    """A server of the wire with words of its own; `answer(request)` gives frames."""

    def handle(socket):
        socket.send(pack({**Toy().metadata, "protocol_version": 1, "schema_hash": "s"}))
        for frame in socket:
            for each in answer(unpack(frame)):
                socket.send(each)

    server = serve_frames(handle, "127.0.0.1", 0, compression=None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"ws://127.0.0.1:{server.socket.getsockname()[1]}"


def test_refusals_find_their_requests_with_and_without_a_number():
    actions = np.ones((1, 8), np.float32)
    requests = []

    def answer(request):
        requests.append(request)
        if len(requests) < 3:
            return []
        return [
            f"SUPERSEDED (seq {requests[1]['seq']}): a newer one came",
            "BUSY: the queue is full",  # the oldest that is left
            pack({"actions": actions, "seq": requests[-1]["seq"]}),
        ]

    async def drive(url):
        async with AsyncRemotePolicy(url) as policy:
            asked = [policy.infer(seen(session="a")) for _ in range(3)]
            return await asyncio.gather(*asked, return_exceptions=True)

    server, url = scripted(answer)
    older, middle, newest = asyncio.run(drive(url))
    assert isinstance(older, ServerBusy) and isinstance(middle, RequestSuperseded)
    assert newest["actions"].shape == (1, 8)
    server.shutdown()


def test_an_answer_to_nothing_that_was_asked_ends_the_connection():
    actions = np.ones((1, 8), np.float32)
    server, url = scripted(lambda request: [pack({"actions": actions, "seq": 77})])
    policy = RemotePolicy(url)
    with pytest.raises(ConnectionError, match=r"answered request 77, expected one of \[0\]"):
        policy.infer(seen())
    with pytest.raises(ConnectionError, match="not connected"):
        policy.infer(seen())
    server.shutdown()


def test_a_cancelled_request_leaves_the_connection_in_order(proxy):
    between, url = proxy
    between.on_answer = delay(0.05)

    async def drive():
        async with AsyncRemotePolicy(url) as policy:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(policy.infer(seen(10)), 0.02)
            assert moved(await policy.infer(seen(20))) == 0.002

    asyncio.run(drive())


def test_a_server_that_stops_reading_does_not_hang_the_robot():
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def shake_hands_and_never_read_again():
        connection, _ = listener.accept()
        asked = connection.recv(4096).decode()
        key = next(line.split(": ")[1] for line in asked.split("\r\n") if "-Key" in line)
        hello = pack({**Toy().metadata, "protocol_version": 1, "schema_hash": "s"})
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key).encode() + b"\r\n\r\n"
            b"\x82\x7e" + struct.pack(">H", len(hello)) + hello
        )
        stop.wait(20)
        connection.close()

    thread = threading.Thread(target=shake_hands_and_never_read_again)
    thread.start()
    policy = RemotePolicy(f"ws://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.3)
    picture = np.zeros((3000, 3000, 3), np.uint8)
    begin = time.monotonic()
    with pytest.raises(ConnectionError, match="the connection was lost"):
        policy.infer(Observation({"front": picture, "wrist": picture}, "go"))
    assert time.monotonic() - begin < 3
    stop.set()
    thread.join()
    listener.close()
