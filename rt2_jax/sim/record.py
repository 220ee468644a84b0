"""Recording demonstrations of the table-top world, in parallel processes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Callable, Mapping
from importlib.metadata import version

import numpy as np

from rt2_jax import __version__
from rt2_jax.data.recording import Recording, RecordingInfo
from rt2_jax.data.rlds import EpisodeEncoder, RecordedStep, RecordingWriter
from rt2_jax.sim.env import MAX_STEPS, TabletopEnv
from rt2_jax.sim.plans import PLAN_POINTS, plan_points
from rt2_jax.sim.policies import DisturbedPolicy, make_policy
from rt2_jax.sim.render import RenderSettings
from rt2_jax.sim.rollout import outcome, play
from rt2_jax.sim.simulation import (
    EMBODIMENT,
    SIMULATION_VERSION,
    STATE_FIELDS,
    TABLETOP_ACTIONS,
)
from rt2_jax.sim.workers import count_jobs, ordered_results
from rt2_jax.sim.world import World, load_world

DATASET_NAME = "rt2_tabletop"
_SOFTWARE = ("mujoco", "numpy", "pillow")  # besides this package: what decides the bytes
_TYPES: Mapping[str, tuple[type, ...]] = {
    "skills": (tuple,),
    "episodes": (int,),
    "seed": (int,),
    "policy": (str,),
    "noise": (float, int),
    "noise_rate": (float, int),
    "cameras": (tuple,),
    "image_format": (str,),
    "render": (RenderSettings,),
    "world": (World,),
    "shard_episodes": (int,),
}


@dataclasses.dataclass(frozen=True)
class RecordSettings:
    """What is recorded: episode i plays the scene of `seed + i`, with the skills in turn.

    Attributes:
      skills: one or more.
      episodes: how many.
      seed: of the first episode's scene.
      policy: one of `rt2_jax.sim.policies.POLICIES`.
      noise: standard deviation of the disturbance of executed translations, metres per axis.
      noise_rate: the part of the steps that is disturbed.
      cameras: what an observation shows.
      image_format: how pictures are stored, one of `rt2_jax.data.recording.IMAGE_FORMATS`.
      render: renderer, size and its options.
      world: the scene vocabulary.
      shard_episodes: how many episodes a file holds.

    Raises:
      TypeError: a value of another type.
      ValueError: a value out of its range, or an unknown name.
    """

    skills: tuple[str, ...] = ("reach", "push")
    episodes: int = 300
    seed: int = 0
    policy: str = "expert"
    noise: float = 0.0
    noise_rate: float = 1.0
    cameras: tuple[str, ...] = ("front",)
    image_format: str = "png"
    render: RenderSettings = dataclasses.field(default_factory=RenderSettings)
    world: World = dataclasses.field(default_factory=load_world)
    shard_episodes: int = 25

    def __post_init__(self) -> None:
        for name, kind in _TYPES.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool):
                expected = " or ".join(each.__name__ for each in kind)
                found = f"{value!r} ({type(value).__name__})"
                raise TypeError(f"{name}: found {found}, expected {expected}")
        if not self.skills or len(set(self.skills)) < len(self.skills):
            raise ValueError(f"skills: found {list(self.skills)}, expected some, each once")
        if self.seed < 0:
            raise ValueError(f"seed: found {self.seed}, expected 0 or more")

    def info(self) -> RecordingInfo:
        """What the recording says about itself: equal information means equal bytes."""
        return RecordingInfo(
            name=DATASET_NAME,
            embodiment=EMBODIMENT,
            action_space=TABLETOP_ACTIONS,
            state_fields=STATE_FIELDS,
            points=PLAN_POINTS,
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
                "noise_rate": self.noise_rate,
                "max_steps": MAX_STEPS,
                "simulation_version": SIMULATION_VERSION,
                "world": self.world.name,
                "world_hash": self.world.hash,
                "render": self.render.to_json(),
                "render_hash": self.render.hash,
                "software": {"rt2_jax": __version__, **{name: version(name) for name in _SOFTWARE}},
            },
        )


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
            DisturbedPolicy(
                make_policy(settings.policy, env), env, settings.noise, settings.noise_rate
            )
            for env in self._envs
        ]

    def record(self, episode: int) -> bytes:
        """The example of the episode of this number."""
        seed, turn = self._settings.seed + episode, episode % len(self._envs)
        env, policy = self._envs[turn], self._policies[turn]
        points: list[tuple[list[str], np.ndarray]] = []
        steps = list(play(env, policy, seed, watch=lambda env: points.append(plan_points(env))))
        end = outcome(env, steps)
        recorded = [
            RecordedStep(
                step.observation, asked, step.reward, executed_action=step.action, points=seen
            )
            for step, asked, seen in zip(steps, policy.asked, points, strict=False)
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
      OSError: the folder cannot be written, another process records into it, or a process was
        killed; what is recorded stays.
    """
    jobs = count_jobs(jobs)
    EpisodeRecorder(settings).close()  # what is wrong shows here, before anything is written
    with contextlib.closing(RecordingWriter(pathlib.Path(out), settings.info())) as writer:
        shards = {shard: writer.info.shards[shard] for shard in writer.missing_shards()}
        missing = list(itertools.chain.from_iterable(shards.values()))
        count = itertools.count(settings.episodes - len(missing))
        report(next(count))
        with ordered_results(
            _record,
            missing,
            jobs=jobs,
            start=_start_worker,
            start_with=(settings,),
            doing="recording",
        ) as examples:
            for shard, episodes in shards.items():
                written = []
                for _ in episodes:
                    written.append(next(examples))
                    report(next(count))
                writer.write_shard(shard, written)
        return writer.finish()


_recorder: EpisodeRecorder  # one in each worker process


def _start_worker(settings: RecordSettings) -> None:
    global _recorder
    _recorder = EpisodeRecorder(settings)


def _record(episode: int) -> bytes:
    return _recorder.record(episode)
