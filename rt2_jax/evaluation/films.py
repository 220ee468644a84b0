"""Films of evaluated episodes: the executed actions are played again, without the policy."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from rt2_jax.actions.policy import Observation
from rt2_jax.evaluation.results import EpisodeResult
from rt2_jax.evaluation.suite import Suite
from rt2_jax.sim.env import TabletopEnv
from rt2_jax.sim.film import Film
from rt2_jax.sim.render import RenderSettings
from rt2_jax.sim.rollout import outcome, play

FILM_SIZE = (320, 320)  # pixels


class Replay:
    """A policy that repeats the actions of an episode."""

    def __init__(self, result: EpisodeResult) -> None:
        self._actions = np.array(result.actions, np.float32)

    def reset(self, session: str | None = None) -> None:
        """Nothing to forget."""

    def infer(self, observation: Observation) -> dict[str, Any]:
        """`actions`: float32 [steps, D], the whole episode as one chunk."""
        return {"actions": self._actions}


def choose(results: Iterable[EpisodeResult], successes: int, failures: int) -> list[EpisodeResult]:
    """The first of each skill's successes and failures."""
    chosen: list[EpisodeResult] = []
    for result in results:
        same = [
            each for each in chosen if (each.skill, each.success) == (result.skill, result.success)
        ]
        if len(same) < (successes if result.success else failures):
            chosen.append(result)
    return chosen


def film(
    suite: Suite,
    results: Iterable[EpisodeResult],
    directory: str | pathlib.Path,
    *,
    size: tuple[int, int] = FILM_SIZE,
) -> list[pathlib.Path]:
    """Writes a GIF of each of these episodes: `<skill>_<seed>_<success|failure>.gif`.

    Args:
      suite: that was played.
      results: of it.
      directory: made if need be.
      size: (height, width) of the pictures.

    Returns:
      the files.

    Raises:
      ValueError: an episode ends otherwise than it did: its world or simulation is another one.
      OSError: the films cannot be written.
    """
    render = dataclasses.replace(suite.render, height=size[0], width=size[1])
    blind = RenderSettings(height=1, width=1)  # nobody looks at what the environment shows
    paths = []
    for result in results:
        word = "success" if result.success else "failure"
        path = pathlib.Path(directory) / f"{result.skill}_{result.seed}_{word}.gif"
        with contextlib.ExitStack() as stack:
            movie = stack.enter_context(contextlib.closing(Film(path, render)))
            env = stack.enter_context(
                contextlib.closing(TabletopEnv(result.skill, world=suite.world, render=blind))
            )
            swapped = suite.instruction == "swapped"
            steps = list(
                play(env, Replay(result), result.seed, swap_instruction=swapped, watch=movie.watch)
            )
            again = outcome(env, steps)
            if (again.success, again.steps) != (result.success, result.steps):
                path.unlink()
                raise ValueError(
                    f"{result.skill}-{result.seed}: played again it ends otherwise (success "
                    f"{again.success} after {again.steps} steps, not {result.success} after "
                    f"{result.steps}); film it with the world and the MuJoCo that evaluated it"
                )
            if swapped:
                told = f"{again.instruction} [judged on: {env.scene.instruction}]"
                again = dataclasses.replace(again, instruction=told)
            movie.end_episode(again)
            movie.save()
        paths.append(path)
    return paths
