"""Many robots and one model, over real sockets: who is answered, who is refused, and why."""

import re
import threading
import time

import pytest
from websockets.sync.client import connect

from rt2_jax.actions.policy import PolicyFault
from rt2_jax.client import PolicyServerError, RemotePolicy
from rt2_jax.client.frames import pack, unpack

from .conftest import Toy, seen, together
from .test_server import page, raw, request


def ask_ahead(url, *frames, pause=0.0):
    """Sends all frames before it reads the answers: text, or the map."""
    with connect(url, compression=None) as socket:
        socket.recv(timeout=10)
        for frame in frames:
            socket.send(pack(frame))
            time.sleep(pause)
        answers = [socket.recv(timeout=10) for _ in frames]
        return [each if isinstance(each, str) else unpack(each) for each in answers]


def numbered(*numbers, **changes):
    return [request(seq=number, **changes) for number in numbers]


def wait_until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not happen within 10 s"
        time.sleep(0.002)


def test_the_newest_request_of_a_session_wins_and_answers_keep_their_order(serve):
    policy = Toy(seconds=0.2)
    _, url = serve(policy)
    answers = ask_ahead(url, *numbered(0, 1, 2, 3), pause=0.02)
    assert answers[0]["seq"] == 0, "one that was begun is answered"
    assert answers[1] == (
        "SUPERSEDED (seq 1): request 2 of session 'connection-1' came before this was begun"
    )
    assert answers[2].startswith("SUPERSEDED (seq 2)") and answers[3]["seq"] == 3
    assert policy.batches == [["connection-1"]] * 2
    assert 'rt2_requests_total{outcome="superseded"} 2.0' in page(url, "/metrics")[1]


def test_requests_without_a_number_are_answered_one_after_the_other(serve):
    policy = Toy(seconds=0.05)
    _, url = serve(policy)
    answers = ask_ahead(url, request(), request(session="b"), *numbered(1), request())
    assert [each["actions"].shape for each in answers] == [(1, 8)] * 4
    assert [len(batch) for batch in policy.batches] == [1] * 4


def test_a_number_that_does_not_rise_is_refused_until_the_session_is_reset(serve):
    _, url = serve()
    frames = [*numbered(5), *numbered(5), *numbered(2), {"reset": None}, *numbered(0)]
    first, again, back, _, anew = raw(url, *map(pack, frames))
    assert isinstance(first, bytes) and isinstance(anew, bytes)
    assert again.startswith("REFUSED (seq 5): request: seq 5 of session 'connection-1' after 5")
    assert back.startswith("REFUSED (seq 2)") and "send 'reset'" in back
    (text,) = raw(url, pack(request(seq="x")))
    assert text.startswith("REFUSED: request: seq: found 'x', expected a whole number that rises")


def test_two_robots_with_one_session_are_told(serve):
    policy = Toy(seconds=0.3)
    _, url = serve(policy)
    one, two = RemotePolicy(url), RemotePolicy(url)

    def ask(i):
        time.sleep((0, 0.1, 0.2)[i])
        return (RemotePolicy(url), one, two)[i].infer(seen(session="other" if i == 0 else "same"))

    _, lost, won = together(3, ask)
    assert "SUPERSEDED" in str(lost) and "two robots need two names of sessions" in str(lost)
    assert won["session"] == "same"


def test_a_full_queue_says_when_to_come_again_and_nobody_waits_for_ever(serve):
    policy = Toy(seconds=0.2)
    _, url = serve(policy, largest_batch=2, max_queue=2)
    clients = [RemotePolicy(url) for _ in range(7)]

    def ask(i):
        time.sleep(0 if i == 0 else 0.05)
        return clients[i].infer(seen(session=str(i)))

    results = together(7, ask)
    busy = [each for each in results if isinstance(each, Exception)]
    assert len(busy) == 4 and all("BUSY (seq 0): 2 requests wait" in str(each) for each in busy)
    assert sum(map(len, policy.batches)) == 3
    assert 'rt2_requests_total{outcome="busy"} 4.0' in page(url, "/metrics")[1]


def test_a_robot_that_asks_ten_times_as_often_never_delays_the_others(serve):
    policy = Toy(seconds=0.01)
    _, url = serve(policy, largest_batch=2, max_wait_s=0)
    clients = [RemotePolicy(url) for _ in range(3)]
    stop = threading.Event()

    def greedy():
        with connect(url, compression=None) as socket:
            socket.recv(timeout=10)
            number = 0
            while not stop.is_set():
                for i in range(10):
                    socket.send(pack(request(session=f"greedy-{i}", seq=number)))
                number += 1
                for _ in range(10):
                    socket.recv(timeout=10)

    thread = threading.Thread(target=greedy)
    thread.start()
    wait_until(lambda: len(policy.batches) > 5)
    begin = len(policy.batches)
    together(3, lambda i: [clients[i].infer(seen(session=f"robot-{i}")) for _ in range(20)])
    stop.set()
    thread.join()
    for i in range(3):
        turns = [n for n, batch in enumerate(policy.batches[begin:]) if f"robot-{i}" in batch]
        gaps = sorted(b - a for a, b in zip(turns, turns[1:], strict=False))
        # Four clients in batches of two: every second one. First come, first served: every sixth.
        assert len(turns) == 20 and gaps[len(gaps) // 2] <= 3, gaps


@pytest.mark.slow
def test_a_batch_waits_for_robots_that_are_expected(serve):
    def sizes(**options):
        policy = Toy(seconds=0.04)
        _, url = serve(policy, **options)
        clients = [RemotePolicy(url) for _ in range(4)]
        barrier = threading.Barrier(4)

        def drive(i):
            for _ in range(16):
                barrier.wait()
                time.sleep(0.01 * (i > 0))  # the first is ahead
                clients[i].infer(seen(session=str(i)))

        together(4, drive)
        return [len(batch) for batch in policy.batches]

    # On a busy machine the robots' rhythm may be lost; three times it hardly is.
    pairs = ((sizes().count(4), sizes(max_wait_s=0).count(4)) for _ in range(3))
    assert any(waited >= at_once + 4 for waited, at_once in pairs)


def test_a_robot_alone_never_waits(serve):
    policy = Toy(seconds=0.03)
    _, url = serve(policy)
    with RemotePolicy(url) as robot:
        waited = [robot.infer(seen())["server_timing"]["queue_ms"] for _ in range(8)]
    assert sorted(waited)[4] < 5


def test_one_bad_row_costs_few_batches_and_then_goes_alone(serve):
    policy = Toy(seconds=0.05)
    _, url = serve(policy)
    clients = [RemotePolicy(url) for _ in range(9)]

    def ask(i):
        if i == 8:
            return clients[8].infer(seen(session="first"))
        wait_until(lambda: policy.batches)
        return clients[i].infer(seen(i, "broken" if i == 3 else "go", session=str(i)))

    results = together(9, ask)
    assert [i for i in range(9) if isinstance(results[i], Exception)] == [3]
    assert len(policy.batches) <= 1 + 7, "halves, not rows"
    del policy.batches[:]
    results = together(8, lambda i: clients[i].infer(seen(i, session=str(i))))
    assert not [each for each in results if isinstance(each, Exception)]
    assert ["3"] in policy.batches, "until it is answered again"


def test_a_model_that_is_at_fault_is_not_blamed_on_the_request(serve):
    class NotFinite(Toy):
        def infer_batch(self, observations):
            raise PolicyFault("the scores are not finite")

    _, url = serve(NotFinite())
    with RemotePolicy(url) as robot, pytest.raises(PolicyServerError, match="FAILED .* not finite"):
        robot.infer(seen())


def test_a_model_that_hangs_is_given_up_and_taken_back_when_it_speaks(serve):
    policy = Toy()
    speak = threading.Event()
    answer = policy.infer_batch

    def hang(observations):
        speak.wait(20)
        return answer(observations)

    policy.infer_batch = hang
    _, url = serve(policy, largest_batch=1, model_timeout_s=0.3)
    results = together(2, lambda i: RemotePolicy(url).infer(seen(session=str(i))))
    assert all("FAILED (seq 0): the model has been silent for 0.3 s" in str(x) for x in results)
    assert page(url, "/readyz")[0] == 503 and "silent for 0.3 s" in page(url, "/readyz")[1]
    with RemotePolicy(url) as robot:
        with pytest.raises(PolicyServerError, match="nothing is answered until it speaks"):
            robot.infer(seen())
        speak.set()
        wait_until(lambda: page(url, "/readyz")[0] == 200)
        assert robot.infer(seen())["actions"].shape == (1, 8)


def test_a_client_that_goes_leaves_no_work_behind(serve):
    policy = Toy(seconds=0.3)
    _, url = serve(policy)
    with connect(url, compression=None) as socket:
        socket.recv(timeout=10)
        for frame in (request(session="a", seq=0), request(session="b", seq=1)):
            socket.send(pack(frame))
            time.sleep(0.05)
    with RemotePolicy(url) as other:
        other.infer(seen(session="c"))
    assert policy.batches == [["a"], ["c"]]
    assert 'rt2_requests_total{outcome="gone"} 2.0' in page(url, "/metrics")[1]


def test_names_of_unread_inputs_are_counted_and_bounded(serve):
    _, url = serve()
    raw(url, *(pack(request(**{f"extra{i}": 1})) for i in range(40)))
    names = re.findall(r'rt2_unread_inputs_total{name="(.*)"}', page(url, "/metrics")[1])
    assert "extra0" in names and "(other)" in names and len(names) == 33
