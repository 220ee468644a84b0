"""What robots are promised while other clients misbehave: the server stays, and so do answers."""

import socket
import struct
import threading
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from rt2_jax.client import PolicyServerError, RemotePolicy
from rt2_jax.client.frames import pack, unpack

from .conftest import Toy, seen
from .fuzzing import Attack
from .toy_process import Robot, ToyProcess

MIB = 2**20
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


@pytest.fixture(scope="module")
def server():
    """One process for all faults: what one leaves behind, the next would meet."""
    limits = {"request_s": 2, "send_s": 2, "strangers": 40, "frame_bytes": MIB, "body_bytes": MIB}
    with ToyProcess(limits=limits) as process:
        yield process
        assert process.alive and "Traceback" not in "".join(process.said), "".join(process.said)
        assert process.end() == 0


def read_all(connection, seconds=10):
    """What arrives until the server closes; None if it does not."""
    connection.settimeout(seconds)
    got = b""
    try:
        while data := connection.recv(65536):
            got += data
    except TimeoutError:
        return None
    except ConnectionError:
        pass
    return got


def opened(server, buffer=None):
    """A websocket by hand: the connection once the handshake is over."""
    connection = socket.socket()
    if buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.connect(server.address)
    connection.sendall(UPGRADE)
    assert connection.recv(12) == b"HTTP/1.1 101"
    return connection


def metric(url, name):
    with socket.create_connection(_address(url)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = read_all(connection).decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def _address(url):
    host, port = url.split("//")[1].split(":")
    return host, int(port)


def attack(server, count, seed):
    """Sends damaged requests beside a robot; growth in bytes after a first part of them."""
    with Robot(server.url) as robot:
        attack = Attack(server.url, seed)
        attack.send(min(count // 4, 2000))
        before = server.memory()
        attack.send(count - min(count // 4, 2000))
        growth = server.memory() - before
        attack.close()
    print(f"seed {seed}: {dict(attack.counts)}, {growth / MIB:.1f} MiB, {robot.answers} beside")
    assert attack.faults == [], f"seed {seed}"
    assert attack.counts["REFUSED"] > count // 8 and attack.counts["vla-eval error"] > count // 20
    assert all(attack.counts[f"{wire} actions"] for wire in ("openpi", "vla-eval", "act"))
    return growth


def test_damaged_requests_are_refused_and_never_acted_on(server):
    attack(server, 200, seed=1)


@pytest.mark.slow
def test_many_damaged_requests_leave_the_server_as_it_was(server, full_check):
    seed = int(time.time()) if full_check else 2
    print("seed", seed)
    growth = attack(server, 100_000 if full_check else 2_000, seed)
    assert growth < 8 * MIB


def assert_nothing_is_left(server, warm, count):
    with Robot(server.url):
        drop(server, warm)
        before, files = server.memory(), server.open_files()
        drop(server, count)
        time.sleep(0.5)
        assert server.memory() - before < 8 * MIB
        assert server.open_files() <= files + 20


def test_clients_that_come_and_drop_leave_nothing_behind(server):
    assert_nothing_is_left(server, warm=100, count=200)


@pytest.mark.slow
def test_a_thousand_connects_and_drops_leave_nothing_behind(server, full_check):
    if not full_check:
        pytest.skip("in the full form only: above is the same for two hundred")
    assert_nothing_is_left(server, warm=300, count=1000)


def drop(server, count):
    """Connects and goes: before, in and after the handshake, in a frame, before the answer."""
    frame = pack({"images": {"front": seen().images["front"]}, "prompt": "go"})
    whole = b"\x82\xfe" + struct.pack("!H", len(frame)) + b"\0\0\0\0" + frame
    sent = (b"", UPGRADE[:50], UPGRADE, b"\x16\x03\x01\0", whole[:40], whole)
    for i in range(count):
        by_hand = i % len(sent) > 3
        with opened(server) if by_hand else socket.create_connection(server.address) as connection:
            if i % 2:  # a reset instead of an end
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(sent[i % len(sent)])
            if i % 3:
                connection.settimeout(0.02)
                try:
                    connection.recv(10)
                except (TimeoutError, ConnectionError):
                    pass


def test_slow_clients_are_let_go_and_robots_are_not(server):
    beginnings = {
        "nothing": b"",
        "headers": b"GET /healthz HTTP/1.1\r\nHo",
        "body": b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nab",
        "frame": b"\x82\xfe\x01\x00\0\0\0\0abc",
        "fragments": b"\x02\x83\0\0\0\0abc",
    }
    with Robot(server.url):
        connections = {}
        for name, beginning in beginnings.items():
            by_hand = name in ("frame", "fragments")
            connections[name] = (
                opened(server) if by_hand else socket.create_connection(server.address)
            )
            connections[name].sendall(beginning)
        until = time.monotonic() + 8
        left = dict(connections)
        while left and time.monotonic() < until:
            for name, connection in list(left.items()):
                try:
                    connection.sendall(b"\x00\x81\0\0\0\0a" if name == "fragments" else b"x")
                except OSError:
                    del left[name]
            time.sleep(0.1)
        assert not left, f"still open: {sorted(left)}"
        for name in ("headers", "nothing"):
            assert (read_all(connections[name]) or b"408").startswith((b"HTTP/1.1 408", b"408"))
    assert metric(server.url, 'rt2_turned_away_total{reason="slow request"}') >= 5


def test_strangers_that_say_nothing_do_not_keep_robots_out(server):
    with Robot(server.url):
        silent = [socket.create_connection(server.address) for _ in range(100)]
        with RemotePolicy(server.url, timeout_s=5) as late:
            assert late.infer(seen())["actions"].shape == (1, 8)
        for each in silent:
            each.close()


def test_a_client_that_stops_reading_holds_neither_memory_nor_others_up(server):
    frame = pack({"images": {letter * 240: 0 for letter in "abcd"}})  # its refusal quotes them
    message = b"\x82\xfe" + struct.pack("!H", len(frame)) + b"\0\0\0\0" + frame
    ping = b"\x89\xfd\0\0\0\0" + b"p" * 125
    with Robot(server.url):
        before = server.memory()
        for what in (message, ping):
            connection = opened(server, buffer=4096)
            connection.settimeout(1)
            ended = time.monotonic() + 12
            with pytest.raises(ConnectionError):
                while time.monotonic() < ended:
                    try:
                        connection.send(what * 1000)
                    except TimeoutError:
                        pass
            connection.close()
        assert server.memory() - before < 24 * MIB
    assert metric(server.url, 'rt2_turned_away_total{reason="unread answer"}') >= 2


def test_what_is_too_large_is_refused(server):
    with Robot(server.url):
        with connect(server.url, compression=None) as client:
            client.recv(timeout=5)
            with pytest.raises(ConnectionClosed, match="1009"):
                client.send(b"\0" * (MIB + 1))
                client.recv(timeout=5)
        for head in (b"Content-Length: 99999999", b"Transfer-Encoding: chunked"):
            with socket.create_connection(server.address) as connection:
                connection.sendall(b"POST /act HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
                try:
                    for _ in range(40):
                        connection.sendall(b"10000\r\n" + b"\0" * 65536 + b"\r\n")
                except ConnectionError:
                    pass
                answer = read_all(connection)
                assert answer == b"" or answer.startswith(b"HTTP/1.1 413")
        with socket.create_connection(server.address) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n" + b"a: " + b"b" * 200_000 + b"\r\n\r\n")
            assert (read_all(connection) or b"HTTP/1.1 4").startswith(b"HTTP/1.1 4")


def test_a_body_of_too_many_values_is_refused():
    with ToyProcess() as roomy, Robot(roomy.url):
        with socket.create_connection(roomy.address) as connection:
            connection.sendall(b"POST /act HTTP/1.1\r\nHost: x\r\nConnection: close\r\n")
            connection.sendall(b"Content-Length: 3000000\r\n\r\n" + b"[],{}," * 500_000)
            assert read_all(connection).startswith(b"HTTP/1.1 413")


def test_a_handshake_with_a_body_leaves_nothing_open(server):
    files = server.open_files()
    for line in (b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"):
        for _ in range(10):
            with socket.create_connection(server.address) as connection:
                connection.sendall(UPGRADE[:-2] + line + b"\r\n5\r\nhello")
                assert read_all(connection) is not None
    time.sleep(0.2)
    assert server.open_files() <= files + 2


def test_pages_of_other_sites_may_not_open_a_websocket(server):
    with pytest.raises(InvalidStatus, match="403"):
        connect(server.url, additional_headers={"Origin": "http://evil.example"})
    # A name that was made to point to this machine after the page was loaded.
    rebound = UPGRADE.replace(b"Host: x", b"Host: evil.example\r\nOrigin: http://evil.example")
    with socket.create_connection(server.address) as connection:
        connection.sendall(rebound)
        assert read_all(connection).startswith(b"HTTP/1.1 403")
    own = f"http://{server.url.split('//')[1]}"
    with connect(server.url, additional_headers={"Origin": own}) as page:
        assert "action_space" in unpack(page.recv(timeout=5))


class _Locked(Toy):
    def infer_batch(self, observations):
        raise OSError("/srv/secret/weights.bin is locked")


def test_a_policy_that_fails_tells_clients_neither_paths_nor_a_traceback_unless_asked(serve):
    for asked in (False, True):
        _, url = serve(_Locked(), debug_errors=asked)
        with RemotePolicy(url) as policy, pytest.raises(PolicyServerError) as error:
            policy.infer(seen())
        said = str(error.value)
        assert "FAILED" in said and (": OSError: ... is locked" in said or asked)
        assert ("Traceback" in said) == ("/srv/secret" in said) == asked


def test_a_server_that_ends_under_load_gives_every_robot_an_answer_or_a_reason():
    with ToyProcess(seconds=0.05, largest_batch=2) as server:
        ends = [None] * 12
        answered = [0] * 12

        def drive(i):
            with RemotePolicy(server.url, timeout_s=20) as policy:
                try:
                    while True:
                        policy.infer(seen(i, session=str(i)))
                        answered[i] += 1
                except Exception as error:
                    ends[i] = error

        threads = [threading.Thread(target=drive, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        while sum(answered) < 12:
            time.sleep(0.01)
        begin = time.monotonic()
        assert server.end() == 0
        assert time.monotonic() - begin < 8
        for thread in threads:
            thread.join(20)
        # The reason of each: the server is ending, or the end itself in the middle of nothing.
        for end in ends:
            assert isinstance(end, (PolicyServerError, ConnectionError)), repr(end)
            assert "ending" in str(end) or "1012" in str(end), end
        assert "Traceback" not in "".join(server.said), "".join(server.said)
