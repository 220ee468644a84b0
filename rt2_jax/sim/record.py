"""Recording demonstrations of the table-top world, in parallel processes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from typing import Any

import numpy as np

from rt2_jax import __version__
from rt2_jax.actions.policy import Observation, Policy
from rt2_jax.data.recording import Recording, RecordingInfo
from rt2_jax.data.rlds import EpisodeEncoder, RecordedStep, RecordingWriter
from rt2_jax.sim.env import MAX_STEPS, TabletopEnv
from rt2_jax.sim.policies import make_policy
from rt2_jax.sim.render import RenderSettings
from rt2_jax.sim.rollout import outcome, play
from rt2_jax.sim.simulation import EMBODIMENT, STATE_FIELDS, TABLETOP_ACTIONS
from rt2_jax.sim.world import World, load_world

DATASET_NAME = "rt2_tabletop"
LARGEST_NOISE = 0.05  # metres: the largest translation that one action can ask for
_TERMINATE = TABLETOP_ACTIONS.index("terminate")
_FIRST_DELTA = TABLETOP_ACTIONS.index("position_delta_x")
_SOFTWARE = ("mujoco", "numpy", "pillow")  # besides this package: what decides the bytes


@dataclasses.dataclass(frozen=True)
class RecordSettings:
    """What is recorded: episode i plays the scene of `seed + i`, with the skills in turn.

    Attributes:
      skills: one or more.
      episodes: how many.
      seed: of the first episode's scene.
      policy: one of `rt2_jax.sim.policies.POLICIES`.
      noise: standard deviation of the disturbance of every executed translation, metres per axis.
      cameras: what an observation shows.
      image_format: how pictures are stored, one of `rt2_jax.data.recording.IMAGE_FORMATS`.
      render: renderer, size and its options.
      world: the scene vocabulary.
      shard_episodes: how many episodes a file holds.

    Raises:
      ValueError: a value out of its range, or an unknown name.
    """

    skills: tuple[str, ...] = ("reach", "push")
    episodes: int = 300
    seed: int = 0
    policy: str = "expert"
    noise: float = 0.0
    cameras: tuple[str, ...] = ("front",)
    image_format: str = "png"
    render: RenderSettings = dataclasses.field(default_factory=RenderSettings)
    world: World = dataclasses.field(default_factory=load_world)
    shard_episodes: int = 25

    def __post_init__(self) -> None:
        if not self.skills or len(set(self.skills)) < len(self.skills):
            raise ValueError(f"skills: found {list(self.skills)}, expected some, each once")
        if self.seed < 0:
            raise ValueError(f"seed: found {self.seed}, expected 0 or more")
        if not 0 <= self.noise <= LARGEST_NOISE:
            raise ValueError(f"noise: found {self.noise} m, expected 0 to {LARGEST_NOISE} m")

    def info(self) -> RecordingInfo:
        """What the recording says about itself: equal information means equal bytes."""
        return RecordingInfo(
            name=DATASET_NAME,
            embodiment=EMBODIMENT,
            action_space=TABLETOP_ACTIONS,
            state_fields=STATE_FIELDS,
            cameras=self.cameras,
            height=self.render.height,
            width=self.render.width,
            image_format=self.image_format,
            disturbed=self.noise > 0,
            episodes=self.episodes,
            shard_episodes=self.shard_episodes,
            origin={
                "skills": list(self.skills),
                "seed": self.seed,
                "policy": self.policy,
                "noise_m": self.noise,
                "max_steps": MAX_STEPS,
                "world": self.world.name,
                "world_hash": self.world.hash,
                "render": self.render.to_json(),
                "render_hash": self.render.hash,
                "software": {"rt2_jax": __version__, **{name: version(name) for name in _SOFTWARE}},
            },
        )


class DisturbedPolicy:
    """Adds Gaussian noise to the translations of another policy, and keeps what that one asked for.

    The robot thus meets states beside the other policy's own path, with the right action for each
    (DART: Laskey et al., 2017, arXiv 1703.09327, section IV).

    Args:
      policy: the other policy.
      env: whose bounds cut the noisy actions.
      noise: standard deviation per axis, metres.
    """

    def __init__(self, policy: Policy, env: TabletopEnv, noise: float) -> None:
        self._policy, self._noise = policy, noise
        self._low, self._high = env.action_space.low, env.action_space.high
        self.reset()

    def reset(self, session: str | None = None) -> None:
        """Begins the noise that belongs to this session."""
        self._policy.reset(session)
        self._random = np.random.Generator(np.random.PCG64(list(f"noise of {session}".encode())))
        self.asked: list[np.ndarray] = []

    def infer(self, observation: Observation) -> dict[str, Any]:
        """`actions`: float32 [K, 8], disturbed where they don't terminate."""
        answer = self._policy.infer(observation)
        self.asked += list(answer["actions"])
        actions = answer["actions"].copy()
        noise = self._random.normal(0.0, self._noise, (len(actions), 3))
        noise[actions[:, _TERMINATE] == 0] = 0
        actions[:, _FIRST_DELTA : _FIRST_DELTA + 3] += noise
        return {**answer, "actions": np.clip(actions, self._low, self._high)}


class EpisodeRecorder:
    """Plays episodes and makes examples of them; keep it, for its renderers are slow to make."""

    def __init__(self, settings: RecordSettings) -> None:
        self._settings = settings
        self._encoder = EpisodeEncoder(settings.info())
        self._envs = [
            TabletopEnv(
                skill, world=settings.world, render=settings.render, cameras=settings.cameras
            )
            for skill in settings.skills
        ]
        self._policies = [
            DisturbedPolicy(make_policy(settings.policy, env), env, settings.noise)
            for env in self._envs
        ]

    def record(self, episode: int) -> bytes:
        """The example of the episode of this number."""
        seed, turn = self._settings.seed + episode, episode % len(self._envs)
        env, policy = self._envs[turn], self._policies[turn]
        steps = list(play(env, policy, seed))
        end = outcome(env, steps)
        recorded = [
            RecordedStep(step.observation, asked, step.reward, executed_action=step.action)
            for step, asked in zip(steps, policy.asked, strict=False)
        ]
        return self._encoder.encode(
            recorded,
            terminated=end.terminated,
            metadata={
                "episode_id": f"{end.skill}-{seed}",
                "skill": end.skill,
                "seed": seed,
                "success": end.success,
                "scene": json.dumps(env.scene.to_json(), sort_keys=True),
            },
        )

    def close(self) -> None:
        """Frees the renderers."""
        for env in self._envs:
            env.close()


def record(
    settings: RecordSettings,
    out: str | pathlib.Path,
    *,
    jobs: int | None = None,
    report: Callable[[int], None] = lambda done: None,
) -> Recording:
    """Records into `out/rt2_tabletop/<version>`, or goes on where an earlier call stopped.

    The bytes depend on the settings alone. A finished recording is left as it is.

    Args:
      settings: what to record.
      out: a folder; it is made if need be.
      jobs: how many processes play; as many as there are processors if absent.
      report: is told how many episodes are recorded: at the beginning, and after each.

    Raises:
      ValueError: bad settings, or another recording stands there; nothing is changed.
      OSError: the folder cannot be written, or a process was killed; what is recorded stays.
    """
    jobs = os.cpu_count() or 1 if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"jobs: found {jobs}, expected 1 or more")
    EpisodeRecorder(settings).close()  # what is wrong shows here, before anything is written
    writer = RecordingWriter(pathlib.Path(out), settings.info())
    shards = {shard: writer.info.shards[shard] for shard in writer.missing_shards()}
    missing = list(itertools.chain.from_iterable(shards.values()))
    count = itertools.count(settings.episodes - len(missing))
    report(next(count))
    with _examples(settings, missing, jobs) as examples:
        for shard, episodes in shards.items():
            written = []
            for _ in episodes:
                written.append(next(examples))
                report(next(count))
            writer.write_shard(shard, written)
    return writer.finish()


@contextlib.contextmanager
def _examples(
    settings: RecordSettings, episodes: list[int], jobs: int
) -> Iterator[Iterator[bytes]]:
    """The examples of these episodes in order, from processes of their own."""
    executor = ProcessPoolExecutor(
        max_workers=max(1, min(jobs, len(episodes))),
        mp_context=multiprocessing.get_context("spawn"),  # a renderer may have started threads
        initializer=_start_worker,
        initargs=(settings,),
    )
    try:
        # Ctrl-C reaches all processes of a terminal; the workers inherit that it's for the parent.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        examples = executor.map(_record, episodes)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield examples
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a recording process was killed, perhaps for want of memory; the finished shards are "
            "kept: run it again to continue, with fewer jobs"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


_recorder: EpisodeRecorder  # one in each worker process


def _start_worker(settings: RecordSettings) -> None:
    global _recorder
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _recorder = EpisodeRecorder(settings)


def _record(episode: int) -> bytes:
    return _recorder.record(episode)


def _end_with_parent() -> None:
    """A killed parent cannot end its workers, and nothing else would."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
