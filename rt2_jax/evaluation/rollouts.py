"""Playing many episodes at once: one process for each environment, one policy for all or each.

Which process plays which scene changes nothing: an episode depends on its scene and on what the
policy answers within its session.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from rt2_jax._processes import portable, serving_processes
from rt2_jax.actions.policy import Observation, Policy
from rt2_jax.evaluation.policy_sources import LocalPolicy, PolicySource
from rt2_jax.evaluation.results import EpisodeResult, sum_up
from rt2_jax.evaluation.suite import Suite
from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.rollout import outcome, play

PATIENCE_S = 60.0
"""How long a server may be away."""

_RETRY_S = 0.5
_MOST_RESTARTS = 5  # of one episode: a server that dies of an observation would do it for ever

Scene = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class _Ask:
    observation: Observation


@dataclasses.dataclass(frozen=True)
class _Reset:
    session: str | None


@dataclasses.dataclass(frozen=True)
class _Note:
    text: str


@dataclasses.dataclass(frozen=True)
class _Failed:
    error: Exception


class _Relay:
    """The policy of an environment's process that asks the one in the evaluating process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def reset(self, session: str | None = None) -> None:
        self._connection.send(_Reset(session))

    def infer(self, observation: Observation) -> dict[str, Any]:
        self._connection.send(_Ask(observation))
        return self._connection.recv()


class _Timed:
    """Measures how long a policy's answers take, as their caller sees it."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.latency_ms: list[float] = []

    def reset(self, session: str | None = None) -> None:
        self.latency_ms = []
        self._policy.reset(session)

    def infer(self, observation: Observation) -> dict[str, Any]:
        start = time.perf_counter()
        answer = self._policy.infer(observation)
        self.latency_ms.append(1000 * (time.perf_counter() - start))
        return answer


def play_scenes(
    suite: Suite,
    source: PolicySource | LocalPolicy,
    scenes: Iterable[Scene],
    *,
    parallel: int,
    patience_s: float = PATIENCE_S,
    note: Callable[[str], None] = lambda text: None,
) -> Iterator[EpisodeResult]:
    """Plays these scenes and yields their results, in the order in which they end.

    Args:
      suite: what the scenes are of; its own list of scenes is not used.
      source: whose policies play.
      scenes: (skill, seed) each.
      parallel: how many environments play at once, each in a process of its own.
      patience_s: how long a server may be away; episodes in flight are begun again.
      note: is told what a person should know, such as an episode that is begun again.

    Raises:
      ValueError: `parallel` is no positive number, or the policy's answer is no action.
      ConnectionError: the server did not come back in time.
      ChildProcessError: a process was killed.
    """
    if parallel < 1:
        raise ValueError(f"parallel: found {parallel}, expected 1 or more")
    waiting = list(reversed(list(scenes)))
    if not waiting:
        return
    remote = None if isinstance(source, LocalPolicy) else source
    players = min(parallel, len(waiting))
    with serving_processes(players, _serve, suite, remote, patience_s) as idle:
        playing: dict[Connection, Scene] = {}
        while waiting or playing:
            while waiting and idle:
                connection = idle.pop()
                playing[connection] = waiting.pop()
                _send(connection, playing[connection], playing[connection])
            asked: list[tuple[Connection, Observation]] = []
            ready = set(wait(list(playing)))
            for connection in [each for each in playing if each in ready]:
                message = _receive(connection, playing[connection])
                if isinstance(message, EpisodeResult):
                    del playing[connection]
                    idle.append(connection)
                    yield message
                elif isinstance(message, _Ask):
                    asked.append((connection, message.observation))
                elif isinstance(message, _Note):
                    note(message.text)
                else:
                    assert isinstance(source, LocalPolicy)
                    source.policy.reset(message.session)
            if asked:
                assert isinstance(source, LocalPolicy)
                answers = source.answer([observation for _, observation in asked])
                for (connection, _), answer in zip(asked, answers, strict=True):
                    _send(connection, playing[connection], answer)


def _receive(connection: Connection, scene: Scene) -> EpisodeResult | _Ask | _Reset | _Note:
    try:
        message = connection.recv()
    except (EOFError, ConnectionError) as error:
        raise _killed(scene) from error
    if isinstance(message, _Failed):
        raise message.error
    return message


def _send(connection: Connection, scene: Scene, message: Any) -> None:
    try:
        connection.send(message)
    except ConnectionError as error:
        raise _killed(scene) from error


def _killed(scene: Scene) -> ChildProcessError:
    return ChildProcessError(
        f"the process that played {_name(scene)} was killed, perhaps for want of memory; run it "
        "again to continue, with fewer environments in parallel"
    )


def _name(scene: Scene) -> str:
    return f"{scene[0]}-{scene[1]}"


def _serve(
    connection: Connection, suite: Suite, source: PolicySource | None, patience_s: float
) -> None:
    """Plays what comes through the connection until it is closed, by a killed parent too."""
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        player = _Player(connection, suite, source, patience_s)
        while True:
            scene = connection.recv()
            try:
                message: EpisodeResult | _Failed = player.play(scene)
            except (EOFError, BrokenPipeError):
                raise
            except Exception as error:
                error.add_note(f"in the process that played {_name(scene)}:\n")
                error.add_note(traceback.format_exc())
                message = _Failed(portable(error))
            connection.send(message)


class _Player:
    """One environment of each skill, and the policy that plays in it."""

    def __init__(
        self, connection: Connection, suite: Suite, source: PolicySource | None, patience_s: float
    ) -> None:
        self._connection, self._suite, self._source = connection, suite, source
        self._patience_s = patience_s
        self._envs: dict[str, TabletopEnv] = {}
        self._policies: dict[str, Policy] = {}

    def play(self, scene: Scene) -> EpisodeResult:
        skill, seed = scene
        suite = self._suite
        if skill not in self._envs:
            self._envs[skill] = TabletopEnv(
                skill, world=suite.world, render=suite.render, cameras=suite.cameras
            )
        env, lost = self._envs[skill], self._source.lost if self._source else ()
        restarts, away_since = 0, 0.0
        while True:
            try:
                policy = _Timed(self._policy(env))
                away_since = 0.0
                start = time.perf_counter()
                swapped = suite.instruction == "swapped"
                steps = list(play(env, policy, seed, swap_instruction=swapped))
                return sum_up(
                    outcome(env, steps),
                    steps,
                    latency_ms=policy.latency_ms,
                    wall_s=time.perf_counter() - start,
                    restarts=restarts,
                )
            except lost as error:
                self._disconnect()
                now = time.monotonic()
                if not away_since:
                    away_since, restarts = now, restarts + 1
                    self._say_lost(scene, error, restarts)
                if now - away_since > self._patience_s:
                    assert self._source is not None
                    raise ConnectionError(
                        f"{self._source.name} did not come back within {self._patience_s:g} s "
                        f"({_line(error)}); start the server again and repeat the command: an "
                        "evaluation with a results file goes on where it stopped"
                    ) from None
                time.sleep(_RETRY_S)

    def _policy(self, env: TabletopEnv) -> Policy:
        if env.skill not in self._policies:
            self._policies[env.skill] = (
                self._source.make(env) if self._source else _Relay(self._connection)
            )
        return self._policies[env.skill]

    def _disconnect(self) -> None:
        """Drops the connections, also those of the other skills: the server is the same."""
        for policy in self._policies.values():
            close = getattr(policy, "close", None)
            if close is not None:
                with contextlib.suppress(Exception):  # it has gone away already
                    close()
        self._policies.clear()

    def _say_lost(self, scene: Scene, error: Exception, restarts: int) -> None:
        assert self._source is not None
        if restarts > _MOST_RESTARTS:
            raise ConnectionError(
                f"{self._source.name} has gone away {restarts} times while {_name(scene)} was "
                f"played ({_line(error)}); look at the server's log"
            ) from None
        self._connection.send(
            _Note(
                f"{self._source.name} went away in {_name(scene)} ({_line(error)}); the episode is "
                "begun again when it is back"
            )
        )


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
