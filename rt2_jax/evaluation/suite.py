"""Which scenes a closed-loop evaluation plays, and what it says to the policy in them."""

from __future__ import annotations

import dataclasses
from typing import Any

from rt2_jax.data.recording import RecordingInfo
from rt2_jax.sim.mjcf import CAMERAS
from rt2_jax.sim.render import RenderSettings
from rt2_jax.sim.simulation import SIMULATION_VERSION
from rt2_jax.sim.world import World, load_world

FIRST_SEED = 10_000_000
"""Far from the seeds of recordings, which begin at 0."""

INSTRUCTIONS = ("original", "swapped")


@dataclasses.dataclass(frozen=True)
class Suite:
    """The same scenes for every policy: seeds `seed` to `seed + episodes - 1` of each skill.

    Attributes:
      skills: one or more of the world's.
      episodes: how many of each skill.
      seed: of the first scene of each skill.
      instruction: "original", or "swapped": the policy is told other objects' names and success is
        judged on the original ones, so a policy that listens must fail.
      cameras: what an observation shows.
      render: renderer and size; those that the policy was trained on.
      world: the scene vocabulary.

    Raises:
      ValueError: a value out of its range, or an unknown name.
    """

    skills: tuple[str, ...] = ("reach", "push")
    episodes: int = 100
    seed: int = FIRST_SEED
    instruction: str = "original"
    cameras: tuple[str, ...] = ("front",)
    render: RenderSettings = dataclasses.field(default_factory=RenderSettings)
    world: World = dataclasses.field(default_factory=load_world)

    def __post_init__(self) -> None:
        if not self.skills or len(set(self.skills)) < len(self.skills):
            raise ValueError(f"skills: found {list(self.skills)}, expected some, each once")
        for skill in self.skills:
            self.world.skill(skill)
        if not self.cameras or set(self.cameras) - set(CAMERAS):
            raise ValueError(
                f"cameras: found {list(self.cameras)}, expected some of {', '.join(CAMERAS)}"
            )
        if self.episodes < 1:
            raise ValueError(f"episodes: found {self.episodes}, expected 1 or more")
        if self.seed < 0:
            raise ValueError(f"seed: found {self.seed}, expected 0 or more")
        if self.instruction not in INSTRUCTIONS:
            raise ValueError(
                f"instruction: found {self.instruction!r}, expected one of "
                f"{', '.join(INSTRUCTIONS)}"
            )

    @property
    def scenes(self) -> tuple[tuple[str, int], ...]:
        """(skill, seed) of every episode, the skills in turn."""
        seeds = range(self.seed, self.seed + self.episodes)
        return tuple((skill, seed) for seed in seeds for skill in self.skills)

    def identity(self) -> dict[str, Any]:
        """What decides an episode besides its scene and the policy; part of every result."""
        return {
            "instruction_mode": self.instruction,
            "cameras": list(self.cameras),
            "world_hash": self.world.hash,
            "render_hash": self.render.hash,
            "simulation_version": SIMULATION_VERSION,
        }

    def refuse_recorded_scenes(self, recording: RecordingInfo) -> None:
        """Refuses to judge a policy on scenes whose seeds were recorded.

        Raises:
          ValueError: seeds overlap, or the recording does not say its seeds.
        """
        first = recording.origin.get("seed")
        if not isinstance(first, int):
            raise ValueError(
                f"recording {recording.name!r} does not say its seeds (origin.seed is {first!r}), "
                "so nobody can tell whether its scenes are evaluated; leave it out if it was not "
                "recorded in the built-in world"
            )
        end = first + recording.episodes
        overlap = range(max(first, self.seed), min(end, self.seed + self.episodes))
        if overlap:
            raise ValueError(
                f"seeds {overlap[0]} to {overlap[-1]} of this evaluation were recorded (recording "
                f"{recording.name!r}: {first} to {end - 1}); a policy may have been trained on "
                f"them: choose others, such as --seed {max(end, FIRST_SEED)}"
            )
