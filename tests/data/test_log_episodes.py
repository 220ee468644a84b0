"""Where an episode of a log ends, and which requests are no steps."""

import dataclasses

import numpy as np
import pytest

from rt2_jax.data import log_episodes
from rt2_jax.data.log_episodes import EpisodeCutter

from .request_logs import numbered, request


def cut(requests, offered=None, **options):
    """(session, places, why it ended) of the episodes; and the counts."""
    settings = {"terminate": 0, "gap_s": 1.0, "keep": lambda session: True, **options}
    cutter = EpisodeCutter(**settings)
    cutter.add_all(requests, offered)
    return [(e.session, e.steps, e.ended) for e in cutter.episodes], +cutter.counts


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"instruction": "come"}, "instruction"),
        ({"clock": 9.0}, "gap"),
        ({"step": 4}, "step"),
        ({}, None),
    ],
)
def test_an_episode_ends_where_something_says_so(changes, reason):
    first, second = request(0, step=5), request(1, step=6)
    episodes, _ = cut([first, second, dataclasses.replace(request(2, step=7), **changes)])
    expected = [("a", [0, 1, 2], "end")]
    if reason:
        expected = [("a", [0, 1], reason), ("a", [2], "end")]
    assert episodes == expected


def test_a_reset_ends_its_session_and_no_other():
    requests = numbered(
        request(0),
        request(1, session="b"),
        request(2, "reset"),
        request(3, session="b"),
        request(4),
    )
    episodes, counts = cut(requests)
    assert episodes == [("a", [0], "reset"), ("b", [1, 3], "end"), ("a", [4], "end")]
    assert not counts


def test_a_connection_that_leaves_ends_its_episodes():
    other = {"connection": "connection-2"}
    left = request(2, "left", session="connection-1")
    episodes, _ = cut(numbered(request(0), request(1, **other), left, request(3, **other)))
    assert episodes == [("a", [0], "left"), ("a", [1, 3], "end")]


def test_the_policys_word_to_terminate_ends_an_episode():
    requests = [request(0), request(1, terminate=True), request(2)]
    assert cut(requests)[0] == [("a", [0, 1], "terminate"), ("a", [2], "end")]
    assert cut(requests, terminate=None)[0] == [("a", [0, 1, 2], "end")]


def test_a_dropped_record_ends_what_it_may_have_been_part_of():
    episodes, counts = cut([request(0), request(1, session="b"), request(3)], offered=6)
    assert episodes == [("a", [0], "lost"), ("b", [1], "lost"), ("a", [2], "end")]
    assert counts == {"lost": 3}


def test_what_gave_no_action_is_no_step_and_is_counted():
    requests = numbered(
        request(0), request(1, "refused"), request(2, "late"), request(3, "failed"), request(4)
    )
    episodes, counts = cut(requests)
    assert episodes == [("a", [0, 4], "end")]
    assert counts == {"refused": 1, "late": 1, "failed": 1}


def test_a_request_that_is_sent_again_is_one_step():
    first, second = request(0), request(1)
    again = dataclasses.replace(second, connection="connection-2")
    left = request(2, "left", session="connection-1")
    episodes, counts = cut(numbered(first, second, left, again, request(4)))
    assert episodes == [("a", [0, 1], "left"), ("a", [4], "end")]
    assert counts == {"repeated": 1}


def test_a_robot_that_stands_still_is_not_taken_for_one_that_asks_again():
    first = request(0)
    nameless = dataclasses.replace(first, seq=None)
    requests = [first, dataclasses.replace(first, seq=1), nameless, nameless]
    assert cut(numbered(*requests))[0] == [("a", [0, 1, 2, 3], "end")]
    begun_anew = [first, request(1, "reset"), first, request(3)]
    assert cut(numbered(*begun_anew))[0][1] == ("a", [2, 3], "end")


def test_other_sessions_are_counted():
    requests = [request(0), request(1, session="b"), request(2)]
    episodes, counts = cut(requests, keep=lambda session: session == "a")
    assert episodes == [("a", [0, 2], "end")] and counts == {"other": 1}


def test_an_episode_never_grows_beyond_an_example_of_rlds(monkeypatch):
    requests = [request(number) for number in range(3)]
    two = sum(len(p) for each in requests[:2] for p in each.pictures.values())
    monkeypatch.setattr(log_episodes, "LARGEST_EPISODE", two)
    assert cut(requests)[0] == [("a", [0, 1], "size"), ("a", [2], "end")]


def test_what_an_episode_holds_is_known_without_reading_it_again():
    longer = np.zeros((4, 8), np.float32)
    longer[:, 0] = 1
    cutter = EpisodeCutter(terminate=0, gap_s=1.0, keep=lambda session: True)
    cutter.add_all([request(0), request(1, state=None, actions=longer, plan="up")], None)
    (episode,) = cutter.episodes
    assert episode.picture_sizes == {(12, 16)} and episode.plans
    assert episode.state_sizes == {0, 2} and episode.chunks == {1, 4}
