"""Who is next: turns between clients, deadlines, sizes of batches, and when waiting pays."""

import asyncio
import types

import pytest

from rt2_jax.serving.arrivals import Arrivals, worth_waiting
from rt2_jax.serving.step_times import StepTimes, powers_of_two
from rt2_jax.serving.waiting_line import SequenceNumbers, Waiting, WaitingLine, choose_batch

TASK, OTHER_TASK = object(), object()
NEVER = float("inf")


def waits(client, session=None, arrived=0.0, budget_s=None, task=TASK, seq=None):
    observation = types.SimpleNamespace(session=session or client)
    request = types.SimpleNamespace(
        observation=observation, budget_s=budget_s, seq=seq, sampling=None
    )
    future = asyncio.Future(loop=asyncio.new_event_loop())
    return Waiting(request, task, "connection", client, arrived, future)


def line_of(*waiting):
    line = WaitingLine()
    for each in waiting:
        line.add(each)
    return line


def known(**milliseconds):
    """`known(b1=20, b8=30)`: times as measured."""
    sizes = {int(name[1:]): value / 1000 for name, value in milliseconds.items()}
    times = StepTimes(tuple(sizes))
    for size, seconds in sizes.items():
        times.note(size, seconds, 0.0)
    return times


def test_the_client_that_was_served_longest_ago_is_next():
    line = line_of(*(waits(name, arrived=i) for i, name in enumerate("abc")))
    line.take(line.next_ones()[:1])
    line.add(waits("a", arrived=3))
    assert [each.client for each in line.next_ones()] == ["b", "c", "a"]


def test_a_client_of_many_sessions_has_one_turn_like_the_others():
    many = [waits("many", f"s{i}", arrived=i) for i in range(10)]
    line = line_of(*many, waits("one", arrived=20))
    turns = [each.client for each in line.next_ones()]
    assert turns[:3] == ["many", "one", "many"]
    line.take(line.next_ones()[:1])
    line.add(waits("many", "s0", arrived=21))
    assert line.next_ones()[0].client == "one"


def test_among_equals_the_earliest_deadline_is_first():
    line = line_of(waits("a", budget_s=0.5), waits("b", arrived=0.1, budget_s=0.2))
    assert [each.client for each in line.next_ones()] == ["b", "a"]


def test_a_session_has_one_request_in_a_batch_and_the_oldest_first():
    first, second = waits("a", arrived=0), waits("a", arrived=1)
    line = line_of(first, second)
    assert line.next_ones() == [first]
    line.take([first])
    assert line.next_ones() == [second]


def test_tasks_are_not_mixed_in_a_batch():
    line = line_of(waits("a"), waits("b", arrived=1, task=OTHER_TASK), waits("c", arrived=2))
    assert [each.client for each in line.next_ones()] == ["a", "c"]


def test_in_a_full_line_the_client_with_most_gives_way():
    line = line_of(*(waits("many", f"s{i}", arrived=i) for i in range(3)), waits("one"))
    assert line.too_many("new").session == "s2"
    assert line.too_many("many") is None
    assert line_of(waits("a"), waits("b")).too_many("c") is None


def test_numbers_of_a_session_rise_and_a_new_connection_numbers_anew():
    numbers = SequenceNumbers()
    numbers.check("s", "first", 7)
    numbers.note("s", "first", 7)
    for seq in (7, 3):
        with pytest.raises(ValueError, match=f"seq {seq} of session 's' after 7: numbers must ri"):
            numbers.check("s", "first", seq)
    numbers.check("s", "second", 0)
    numbers.forget("s")
    numbers.check("s", "first", 0)


def test_a_few_slow_batches_do_not_move_the_expected_time_and_a_change_does():
    times = StepTimes((1, 4))
    for seconds in (0.02, 0.5, 0.021, 0.02, 0.019):
        times.note(1, seconds, 0.0)
    assert times.expected(1) == 0.02
    assert times.expected(3) == 0.02, "never measured: at least as long as a smaller one"
    for _ in range(15):
        times.note(1, 0.1, 2.0)
    assert times.expected(1) == 0.1 and times.per_second() == 10
    assert not times.doubtful(1, 2.5) and times.doubtful(1, 3.5)
    times.note(4, 0.9, 2.0)
    assert times.expected(4) == 0.9
    times.note(1, 0.1, 13.0)
    assert times.expected(4) == 0.1, "forgotten, so that it is tried again"
    assert powers_of_two(1) == (1,) and powers_of_two(6) == (1, 2, 4, 8)


def test_five_are_not_padded_to_eight_where_four_and_one_are_done_sooner():
    linear = known(b1=10, b2=20, b4=40, b8=80)
    assert choose_batch([NEVER] * 5, linear, 8, 0.0) == [0, 1, 2, 3]
    flat = known(b1=20, b2=20, b4=20, b8=20)
    assert choose_batch([NEVER] * 5, flat, 8, 0.0) == [0, 1, 2, 3, 4]
    assert choose_batch([NEVER] * 20, flat, 8, 0.0) == list(range(8))


def test_a_smaller_batch_is_run_where_a_larger_one_would_miss_deadlines():
    times = known(b1=10, b2=12, b4=30)
    assert choose_batch([0.015, NEVER, NEVER, NEVER], times, 4, 0.0) == [0, 1]
    # It cannot be in time behind its turn either: the others do not wait for it.
    assert choose_batch([NEVER, NEVER, NEVER, 0.011], known(b4=30), 4, 0.0) == [0, 1, 2]


def test_a_rhythm_is_known_after_a_few_requests_and_forgotten_without_one():
    arrivals = Arrivals()
    for i in range(5):
        arrivals.note("even", i * 0.1)
        arrivals.note("uneven", i**2 * 0.1)
    assert arrivals.expected(0.45, 0.2, ()) == pytest.approx([0.05])
    assert arrivals.expected(0.45, 0.2, ("even",)) == []
    assert arrivals.expected(0.45, 0.04, ()) == []
    assert arrivals.expected(0.60, 0.2, ()) == [], "it did not come; it is not waited for"


def test_a_robot_that_asks_a_while_after_each_answer_has_a_rhythm_too():
    arrivals = Arrivals()
    now = 0.0
    for step in (0.02, 0.05, 0.03, 0.09, 0.02):
        arrivals.note("loop", now)
        arrivals.answered("loop", now + step)
        now += step + 0.01
    assert arrivals.expected(now - 0.01, 0.1, ()) == pytest.approx([0.01])


def test_waiting_pays_for_robots_that_come_at_once_and_never_past_a_deadline():
    flat = known(b1=20, b2=20, b4=20, b8=20)
    assert worth_waiting(1, [], flat, 8, NEVER) == 0.0, "alone"
    soon = worth_waiting(1, [0.001] * 7, flat, 8, NEVER)
    assert 0.001 <= soon <= 0.004
    assert worth_waiting(1, [0.001] * 7, flat, 8, 0.0205) == 0.0
    assert worth_waiting(1, [0.019], flat, 8, NEVER) == 0.0, "the batch is nearly done by then"
    linear = known(b1=10, b2=20, b4=40, b8=80)
    assert worth_waiting(1, [0.001] * 7, linear, 8, NEVER) == 0.0, "a batch saves nothing"
