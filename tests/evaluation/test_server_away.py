"""A server that goes away costs time, never a failure: a real socket is closed and comes back."""

import contextlib
import dataclasses
import threading
import time
from multiprocessing.connection import Client, Listener
from pathlib import Path

import numpy as np
import pytest

from rt2_jax.evaluation.closed_loop import evaluate
from rt2_jax.evaluation.policy_sources import RemotePolicySource
from rt2_jax.evaluation.suite import Suite
from rt2_jax.sim.render import RenderSettings

SUITE = Suite(skills=("reach", "push"), episodes=2, render=RenderSettings(height=2, width=2))


class SocketPolicy:
    """A client, on the robot's side."""

    def __init__(self, connection):
        self._connection = connection

    def reset(self, session=None):
        pass

    def infer(self, observation):
        self._connection.send((observation.session, observation.step))
        return {"actions": self._connection.recv()}

    def close(self):
        self._connection.close()


@dataclasses.dataclass(frozen=True)
class Connect:
    address: str

    def __call__(self):
        connection = Client(self.address, "AF_UNIX")
        return SocketPolicy(connection), connection.recv()


class Server:
    """Answers every connection in a thread of its own, until it dies."""

    def __init__(self, address, metadata, dies_after=None):
        self._listener = Listener(address, "AF_UNIX")
        self._metadata, self._dies_after, self.answered = metadata, dies_after, 0
        self.dead = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self.dead.is_set():
            try:
                connection = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with contextlib.closing(connection), contextlib.suppress(EOFError, OSError):
            connection.send(self._metadata)
            while not self.dead.is_set():
                if not connection.poll(0.01):
                    continue
                session, step = connection.recv()
                self.answered += 1
                if self.answered == self._dies_after:
                    self.die()
                    return
                actions = np.zeros((1, 8), np.float32)
                actions[0, 0], actions[0, 1] = step < 9, len(session) / 1000
                connection.send(actions)

    def die(self):
        self._listener.close()
        self.dead.set()


@pytest.fixture
def address(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # the playing processes import this
    return str(tmp_path / "socket")


def source(address, metadata, name="ws://robot:8000"):
    lost = (ConnectionError, EOFError, FileNotFoundError)
    return RemotePolicySource(name, Connect(address), metadata, lost)


def test_episodes_in_flight_are_begun_again_and_are_no_failures(address, tmp_path):
    calm = Server(address, {"step": 1})
    expected = evaluate(SUITE, source(address, {"step": 1}), parallel=2)
    calm.die()

    dying = Server(address, {"step": 1}, dies_after=15)
    back = []

    def restart():
        dying.dead.wait(30)
        time.sleep(0.2)
        back.append(Server(address, {"step": 1}))

    threading.Thread(target=restart, daemon=True).start()
    notes = []
    found = evaluate(
        SUITE,
        source(address, {"step": 1}),
        parallel=2,
        out=tmp_path / "out.jsonl",
        note=notes.append,
    )
    back[0].die()
    assert [(r.outcome, r.actions) for r in found.results] == [
        (r.outcome, r.actions) for r in expected.results
    ]
    assert sum(result.restarts for result in found.results) == len(notes) >= 1
    assert notes[0].startswith("ws://robot:8000 went away in ")
    assert notes[0].endswith("the episode is begun again when it is back")
    assert sum(skill["restarts"] for skill in found.to_json()["skills"].values()) == len(notes)


def test_a_server_that_stays_away_stops_the_evaluation_in_one_line(address, tmp_path):
    dying, out = Server(address, {}, dies_after=25), tmp_path / "out.jsonl"
    message = r"^ws://robot:8000 did not come back within 1 s \(.*\); start the server again and .*"
    with pytest.raises(ConnectionError, match=message) as caught:
        evaluate(SUITE, source(address, {}), parallel=1, patience_s=1, out=out)
    assert "\n" not in str(caught.value)
    assert dying.dead.is_set()
    assert len(out.read_text().splitlines()) == 2  # of ten steps each; the third was in flight
    again = Server(address, {})
    assert len(evaluate(SUITE, source(address, {}), parallel=1, out=out).results) == 4
    assert again.answered == 20
    again.die()


def test_a_server_that_dies_of_an_observation_is_not_tried_for_ever(address):
    stop = threading.Event()

    def keep_starting():
        while not stop.is_set():
            server = Server(address, {}, dies_after=3)
            server.dead.wait(30)

    threading.Thread(target=keep_starting, daemon=True).start()
    try:
        with pytest.raises(ConnectionError, match="has gone away 6 times while reach-10000000 was"):
            evaluate(dataclasses.replace(SUITE, episodes=1), source(address, {}), parallel=1)
    finally:
        stop.set()


def test_a_server_that_comes_back_with_another_policy_is_refused(address):
    server = Server(address, {"step": 2})
    with pytest.raises(ValueError, match="ws://robot:8000: the server now serves another policy"):
        evaluate(SUITE, source(address, {"step": 1}), parallel=1)
    server.die()
