"""The control loop: what the robot is told, and that it always stands in the end."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from rt2_jax.actions.policy import Observation
from rt2_jax.actions.space import rt2_action_space
from rt2_jax.client import (
    ActionChunks,
    DeadlineExceeded,
    PolicyServerError,
    ServerBusy,
    run_episode,
)

SPACE = rt2_action_space(
    "toy",
    translation_bound_m=10,
    rotation_bound_rad=0.25,
    gripper_polarity="high_is_open",
    control_rate_hz=50,
)
GO_ON, TERMINATE = 1, 0


class Robot:
    """Writes down what it is told."""

    def __init__(self, fault=None):
        self.calls, self.seen, self.fault = [], 0, fault

    def observe(self):
        self.seen += 1
        return Observation({"front": np.zeros((2, 2, 3), np.uint8)}, "go")

    def apply(self, action):
        if self.fault:
            raise self.fault
        self.calls.append(round(float(action[1]), 3))

    def stop(self):
        self.calls.append("stop")


class Scripted:
    """Answers from a list: chunks of x, exceptions, or seconds to take; then the last for ever."""

    action_space = SPACE

    def __init__(self, *answers, seconds=0.0):
        self.answers, self.seconds = list(answers), seconds
        self.observations, self.resets = [], []

    def reset(self, session=None):
        self.resets.append(session)

    def infer(self, observation):
        self.observations.append(observation)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        time.sleep(self.seconds)
        if isinstance(answer, Exception):
            raise answer
        actions = np.zeros((len(answer), 8), np.float32)
        actions[:, 0] = GO_ON
        actions[:, 1] = answer
        if answer[-1] == 9:
            actions[-1, 0] = TERMINATE
        return {"actions": actions}


def test_actions_are_applied_in_order_until_the_policy_says_that_it_is_done():
    robot, policy = Robot(), Scripted([1, 2], [3, 9])
    summary = run_episode(policy, robot, session="a")
    assert robot.calls == [1, 2, 3, "stop"]  # the action that says terminate is not applied
    assert summary.reason == "terminate" and summary.answers == 2 and summary.held == 0
    assert policy.resets == ["a"]
    assert [(each.session, each.step) for each in policy.observations] == [("a", 0), ("a", 2)]


def test_the_rate_is_that_of_the_action_space():
    begin = time.monotonic()
    summary = run_episode(Scripted([1]), Robot(), max_ticks=10)
    assert 0.18 < time.monotonic() - begin < 0.6
    assert summary.reason == "max_ticks" and summary.ticks == 10
    assert 0 <= summary.latency_ms_p50 <= summary.latency_ms_p99
    assert "10 ticks" in summary.describe()


def test_an_answer_is_applied_when_it_comes_and_the_robot_holds_meanwhile():
    robot = Robot()
    summary = run_episode(Scripted([1], seconds=0.05), robot, max_ticks=8, hold_ticks=5)
    assert robot.calls.count(1) >= 2 and summary.held >= 3 and robot.calls[-1] == "stop"


def test_without_actions_the_robot_holds_and_then_stops():
    robot = Robot()
    summary = run_episode(Scripted([1], DeadlineExceeded("late")), robot, hold_ticks=2)
    assert robot.calls == [1, "stop"]
    assert summary.reason == "no_action" and summary.held == 3 and summary.unanswered >= 2
    assert summary.detail == "3 ticks without an action; late"


def test_a_busy_server_is_asked_again_with_the_next_picture():
    robot = Robot()
    summary = run_episode(Scripted(ServerBusy("full"), ServerBusy("full"), [9]), robot)
    assert summary.reason == "terminate" and summary.unanswered == 2 and robot.seen == 3


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PolicyServerError("REFUSED: no view"), "refused"),
        (ConnectionError("the connection was lost"), "connection"),
    ],
)
def test_what_cannot_get_better_ends_the_episode(error, reason):
    robot = Robot()
    summary = run_episode(Scripted([1], error), robot)
    assert robot.calls == [1, "stop"] and summary.reason == reason
    assert summary.detail == str(error)


def test_a_connection_that_comes_back_is_waited_for_in_held_ticks():
    policy = Scripted([1], ConnectionError("lost"), [2], [9])
    policy.reconnect = "always"
    robot = Robot()
    assert run_episode(policy, robot).reason == "terminate"
    assert robot.calls == [1, 2, "stop"]


def test_the_emergency_stop_is_seen_while_an_answer_is_awaited():
    robot, pressed = Robot(), threading.Event()
    threading.Timer(0.05, pressed.set).start()
    begin = time.monotonic()
    summary = run_episode(
        Scripted([1], seconds=0.5),
        robot,
        rate_hz=1,
        stop_when=lambda: "the red button" if pressed.is_set() else None,
    )
    assert summary.reason == "stop_when" and summary.detail == "the red button"
    assert robot.calls == ["stop"]
    assert time.monotonic() - begin < 0.9  # the policy was waited for, the period was not


@pytest.mark.parametrize("where", ["robot", "stop_when", "policy"])
def test_the_robot_stands_whatever_raises(where):
    fault = ZeroDivisionError("somebody's mistake")

    def stop_when():
        if where == "stop_when":
            raise fault

    robot = Robot(fault if where == "robot" else None)
    policy = Scripted(fault if where == "policy" else [1])
    with pytest.raises(ZeroDivisionError):
        run_episode(policy, robot, stop_when=stop_when)
    assert robot.calls == ["stop"]


def test_answers_are_prefetched_while_the_robot_moves():
    chunks = ActionChunks(SPACE, "prefetch", ahead=3)
    robot = Robot()
    summary = run_episode(
        Scripted([1, 2, 3, 4, 5], [6, 6, 6, 6, 6], seconds=0.03),
        robot,
        chunks=chunks,
        max_ticks=12,
    )
    assert summary.held <= 3 and summary.answers >= 2  # only the first answer was waited for
    assert robot.calls[:3] == [1, 2, 3] and 6 in robot.calls


def test_an_observation_that_is_not_there_is_a_tick_without_an_action():
    robot = Robot()
    robot.observe = lambda: None
    summary = run_episode(Scripted([1]), robot, hold_ticks=1)
    assert summary.reason == "no_action" and "observe() saw nothing" in summary.detail


def test_a_policy_without_an_action_space_is_refused():
    policy = Scripted([1])
    policy.action_space = None
    with pytest.raises(ValueError, match="Scripted names no action space: give action_space="):
        run_episode(policy, Robot())


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)]
)
def test_ctrl_c_and_sigterm_leave_a_robot_that_stands(sent, status):
    program = """
import sys
from tests.client.test_episode import Robot, Scripted, run_episode
class Slow(Robot):
    def apply(self, action):
        print("moves", flush=True)
    def stop(self):
        print("stops", flush=True)
run_episode(Scripted([1]), Slow())
print("goes on", flush=True)
"""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert process.stdout.readline() == "moves\n"
    process.send_signal(sent)
    rest, _ = process.communicate(timeout=20)
    assert rest.splitlines()[-1] == "stops" and process.returncode == status
