"""The control loop: a robot, a policy, a rate, and a robot that stands still afterwards."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any, Callable, List, Optional

import numpy as np

from rt2_jax.actions.policy import Observation, Policy, check_policy_output
from rt2_jax.actions.space import TERMINATE_LEVELS, ActionSpace
from rt2_jax.client.asking import Asker
from rt2_jax.client.chunks import ActionChunks
from rt2_jax.client.episode_summary import EpisodeSummary, Robot
from rt2_jax.client.errors import (
    DeadlineExceeded,
    PolicyServerError,
    RequestSuperseded,
    ServerBusy,
    StaleAnswer,
    UnsafeAction,
)
from rt2_jax.client.interrupts import Interrupts
from rt2_jax.client.rate import ControlRate

_LOG = logging.getLogger("rt2_jax.client")
_LOOK_S = 0.01  # so often `stop_when` is asked
_NEXT_TIME = (
    DeadlineExceeded,
    RequestSuperseded,
    ServerBusy,
    StaleAnswer,
    TimeoutError,
    UnsafeAction,
)
StopWhen = Callable[[], Any]


class _End(Exception):
    """The episode is over: why, in a word and in a sentence."""


def run_episode(
    policy: Policy,
    robot: Robot,
    *,
    session: Optional[str] = None,
    action_space: Optional[ActionSpace] = None,
    rate_hz: Optional[float] = None,
    max_ticks: Optional[int] = None,
    chunks: Optional[ActionChunks] = None,
    stop_when: StopWhen = lambda: None,
    hold_ticks: int = 3,
) -> EpisodeSummary:
    """Drives a robot at a fixed rate until the episode ends; `robot.stop()` is its last call.

    Each tick: `stop_when` is asked, the robot observes if another answer is wanted, and the next
    action is applied as soon as it is there. The policy is asked on a thread of its own. A tick
    without an action holds: nothing is applied, and the robot keeps its last target; after
    `hold_ticks` of them in a row the episode ends. Requests that the server could not answer in
    time, or whose action it found unsafe, are such ticks; a request that it refuses as malformed,
    or that the policy failed at, ends the episode, and so does a lost connection, unless the
    policy's `reconnect` is `always`. An action that says *terminate* is not applied.

    Args:
      policy: `RemotePolicy`, or any other; belongs to this function until it returns.
      robot: see `Robot`.
      session: the episode's name, unique on the server; observations carry it then, and `step`.
      action_space: of the actions; None for the policy's own.
      rate_hz: None for the action space's.
      max_ticks: None for no end.
      chunks: how answers of several actions are executed; None for one after the other.
      stop_when: the emergency stop: asked at least every 10 ms while the loop waits, and before
        every action. Anything true ends the episode, as the reason's detail.
      hold_ticks: ticks in a row without an action that are borne.

    Returns:
      What happened, and why it ended: `reason` is one of `EpisodeSummary.REASONS`.

    Raises:
      KeyboardInterrupt, SystemExit: Ctrl-C and SIGTERM, after the robot has stopped (in the main
        thread).
      Exception: what the robot, `stop_when` or the policy raised that is none of the above, after
        `stop`.
    """
    space = action_space or _space_of(policy)
    loop = _Loop(
        policy=policy,
        robot=robot,
        session=session,
        space=space,
        chunks=chunks or ActionChunks(space),
        rate=ControlRate(space.control_rate_hz if rate_hz is None else rate_hz),
        stop_when=stop_when,
        hold_ticks=hold_ticks,
    )
    with Interrupts() as interrupts:
        loop.interrupts = interrupts
        try:
            reason, detail = loop.run(max_ticks)
        finally:
            interrupts.last_words = True
            robot.stop()
            if not interrupts.received:
                loop.asker.join()  # the policy is the caller's again; the robot stands meanwhile
    summary = loop.summary(reason, detail)
    _LOG.info("%s", summary.describe())
    interrupts.deliver()
    return summary


def _space_of(policy: Any) -> ActionSpace:
    space = getattr(policy, "action_space", None)
    metadata = getattr(policy, "metadata", {})
    if space is None and "action_space" in metadata:
        space = ActionSpace.from_json(metadata["action_space"])
    if space is None:
        raise ValueError(f"{type(policy).__name__} names no action space: give action_space=...")
    return space


@dataclasses.dataclass
class _Loop:
    policy: Any
    robot: Robot
    session: Optional[str]
    space: ActionSpace
    chunks: ActionChunks
    rate: ControlRate
    stop_when: StopWhen
    hold_ticks: int
    interrupts: Interrupts = dataclasses.field(default_factory=Interrupts)
    asker: Asker = dataclasses.field(default_factory=Asker)
    asked_at: int = 0
    ticks: int = 0
    held: int = 0
    held_in_a_row: int = 0
    unanswered: int = 0
    last_error: str = ""
    latencies_s: List[float] = dataclasses.field(default_factory=list)

    def run(self, max_ticks: Optional[int]) -> tuple[str, str]:
        self.chunks.clear()
        try:
            self._reset()
            while max_ticks is None or self.ticks < max_ticks:
                self._tick()
            return "max_ticks", f"{max_ticks} ticks"
        except _End as end:
            return end.args

    def _reset(self) -> None:
        self.asker.begin(lambda: self.policy.reset(self.session))
        while not self.asker.wait(_LOOK_S):
            self._look()
        try:
            self.asker.take()
        except (ConnectionError, TimeoutError) as error:
            raise _End("connection", str(error)) from error
        except PolicyServerError as error:
            raise _End("refused", str(error)) from error

    def _tick(self) -> None:
        self._look()
        due = self.rate.due()
        if self.chunks.wants and not self.asker.busy:
            self._ask()
        self._take_answer()
        while self.chunks.left <= 0 and self.asker.busy:
            left = due - time.monotonic()
            if left <= 0:
                break
            self.asker.wait(min(left, _LOOK_S))
            self._take_answer()
            self._look()
        self._act(self.chunks.next())
        self.ticks += 1
        while due - time.monotonic() > _LOOK_S:
            time.sleep(_LOOK_S)
            self._look()
        self.rate.wait()

    def _look(self) -> None:
        if self.interrupts.received:
            raise _End("interrupted", self.interrupts.received)
        why = self.stop_when()
        if why:
            raise _End("stop_when", str(why))

    def _ask(self) -> None:
        seen = self.robot.observe()
        if seen is None:
            self.last_error = "observe() saw nothing"
            return
        if self.session is not None:
            seen = dataclasses.replace(seen, session=self.session, step=self.ticks)
        self.asked_at = self.chunks.executed
        observation: Observation = seen
        self.asker.begin(lambda: self.policy.infer(observation))

    def _take_answer(self) -> None:
        if not self.asker.ready:
            return
        try:
            result = self.asker.take()
        except _NEXT_TIME as error:
            self._missed(error)
        except ConnectionError as error:
            if getattr(self.policy, "reconnect", "") != "always":
                raise _End("connection", str(error)) from error
            self._missed(error)
        except PolicyServerError as error:
            raise _End("refused", str(error)) from error
        else:
            self.latencies_s.append(self.asker.took_s)
            self.last_error = ""
            outdated = self.chunks.outdated
            self.chunks.add(check_policy_output(self.space, result), self.asked_at)
            if self.chunks.outdated > outdated:
                self.last_error = (
                    f"an answer of {len(result['actions'])} actions came after "
                    f"{self.chunks.executed - self.asked_at} had been executed"
                )

    def _missed(self, error: Exception) -> None:
        self.unanswered += 1
        self.last_error = str(error)

    def _act(self, action: Optional[np.ndarray]) -> None:
        if action is None:
            self.held += 1
            self.held_in_a_row += 1
            if self.held_in_a_row > self.hold_ticks:
                why = self.last_error or "no answer has come yet"
                raise _End("no_action", f"{self.held_in_a_row} ticks without an action; {why}")
            return
        self.held_in_a_row = 0
        for field, value in zip(self.space.fields, action):
            if field.levels == TERMINATE_LEVELS and value == TERMINATE_LEVELS.index("terminate"):
                raise _End("terminate", "the policy says that the task is done")
        self._look()
        self.robot.apply(action)

    def summary(self, reason: str, detail: str) -> EpisodeSummary:
        return EpisodeSummary.of(
            self.latencies_s,
            reason=reason,
            detail=detail,
            ticks=self.ticks,
            missed=self.rate.missed,
            held=self.held,
            unanswered=self.unanswered,
            outdated=self.chunks.outdated,
        )
