"""`rt2 bench int8`: what 8-bit weights change, on the observations that the policy itself meets."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rt2_jax._text_table import aligned
from rt2_jax.actions.policy import Observation
from rt2_jax.evaluation.closed_loop import evaluate
from rt2_jax.evaluation.models import engine_source, seen_pictures
from rt2_jax.evaluation.policy_sources import LocalPolicy
from rt2_jax.evaluation.suite import Suite
from rt2_jax.inference.engine import PolicyEngine
from rt2_jax.inference.history import FrameHistory
from rt2_jax.sim.simulation import EMBODIMENT

AIM = 0.98
"""Greedy tokens as those of the weights as stored, at least."""

_SESSIONS = (1, 8)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
      checkpoint: of a policy for the table-top world.
      episodes: of each skill, played with both.
      skills: of the world.
      rounds: of one action with each, in turn, for the times.
      weights: the format that is compared with the stored one.
    """

    checkpoint: str
    episodes: int = 50
    skills: tuple[str, ...] = ("reach", "push")
    rounds: int = 50
    weights: str = "int8"


class _Beside:
    """Acts as one engine does and counts how many tokens of another are the same.

    Both see the same frames, the history too.
    """

    def __init__(self, acting: PolicyEngine, beside: PolicyEngine) -> None:
        self._engines = acting, beside
        self._task = acting.robot_task(embodiment=EMBODIMENT)
        self._history = FrameHistory(acting.description.inputs.image_slots)
        self.equal: list[np.ndarray] = []
        self.score_differences: list[float] = []

    def reset(self, session: str | None = None) -> None:
        self._history.forget(session)

    def infer(self, observation: Observation) -> dict[str, Any]:
        return self.infer_batch([observation])[0]

    def infer_batch(self, observations: Sequence[Observation]) -> list[dict[str, Any]]:
        acting, beside = self._engines
        # Not remembered by the first, which is asked in front of the one that acts.
        others = beside.act(observations, self._task, _Read(self._history))
        results = acting.act(observations, self._task, self._history)
        for one, other in zip(results, others, strict=True):
            same = one["tokens"] == other["tokens"]
            self.equal.append(same)
            if same.all():
                self.score_differences.append(abs(one["score"] - other["score"]))
        return results


class _Read(FrameHistory):
    """A history that is only read."""

    def __init__(self, history: FrameHistory) -> None:
        self.__dict__ = history.__dict__

    def remember(self, observations: Sequence[Observation]) -> None:
        pass


def measure(settings: Settings, report: Callable[[str], None]) -> dict[str, Any]:
    """Plays with the stored weights, the others beside them, then with the others; plain JSON.

    Args:
      settings: how much.
      report: called with a line on what happens.

    Raises:
      FileNotFoundError, KeyError, ValueError: no checkpoint, or none of the table-top world.
    """
    report(f"loading {settings.checkpoint} twice")
    stored, narrow = (
        PolicyEngine.from_checkpoint(settings.checkpoint, _SESSIONS, weights=each)
        for each in ("stored", settings.weights)
    )
    source, other = (engine_source(each, each.weights.format) for each in (stored, narrow))
    cameras, (height, width) = seen_pictures(source, ("front",), (64, 64))
    suite = Suite(skills=settings.skills, episodes=settings.episodes, cameras=cameras)
    suite = dataclasses.replace(
        suite, render=dataclasses.replace(suite.render, height=height, width=width)
    )
    both = _Beside(stored, narrow)
    report("playing with the weights as stored, the others beside them")
    played = evaluate(suite, LocalPolicy(both, "stored", source.description), parallel=8)
    report(f"playing with {settings.weights}")
    narrow_played = evaluate(suite, other, parallel=8)
    report("timing")
    equal = np.stack(both.equal)
    compared = narrow_played.compare(played)
    return {
        "settings": dataclasses.asdict(settings),
        "observations": len(equal),
        "tokens_equal": float(equal.mean()),
        "tokens_equal_at_each_place": equal.mean(axis=0).round(4).tolist(),
        "actions_equal": float(equal.all(axis=1).mean()),
        "score_difference_p95": float(np.percentile(both.score_differences or [np.nan], 95)),
        "aim": AIM,
        "success": {
            skill: {
                "stored": played.rate(skill).to_json(),
                settings.weights: narrow_played.rate(skill).to_json(),
                "p": compared[skill].p_value,
            }
            for skill in settings.skills
        },
        "bytes": {"stored": stored.weights.bytes, settings.weights: narrow.weights.bytes},
        "ms_per_action": _times({"stored": stored, settings.weights: narrow}, settings.rounds),
    }


def _times(engines: dict[str, PolicyEngine], rounds: int) -> dict[str, float]:
    """The median of each, one action at a time, in turn."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds + 1):
        for name, engine in engines.items():
            example = dict(engine.description.example_input)
            begin = time.perf_counter()
            engine.decode([example], engine.robot_task(embodiment=EMBODIMENT))
            if number:
                times[name].append(1000 * (time.perf_counter() - begin))
    return {name: statistics.median(each) for name, each in times.items()}


def table(found: dict[str, Any]) -> str:
    """What `measure` found, for people."""
    name = found["settings"]["weights"]
    rows = [
        ["observations", f"{found['observations']:,}"],
        [
            "greedy tokens equal",
            f"{found['tokens_equal']:.2%} (aim: {AIM:.0%} or more)",
        ],
        ["whole actions equal", f"{found['actions_equal']:.2%}"],
        ["scores of equal actions differ by", f"{found['score_difference_p95']:.3f} (p95)"],
    ]
    for skill, rates in found["success"].items():
        texts = []
        for each in ("stored", name):
            rate = rates[each]
            low, high = rate["interval"]
            texts.append(f"{each} {rate['successes']}/{rate['trials']} ({low:.0%} to {high:.0%})")
        rows.append([f"success: {skill}", f"{', '.join(texts)}, p = {rates['p']:.2f}"])
    for what, unit, scale in (("bytes", "MB", 1e-6), ("ms_per_action", "ms", 1.0)):
        values = [f"{each} {found[what][each] * scale:.2f} {unit}" for each in ("stored", name)]
        rows.append([{"bytes": "weights"}.get(what, "an action, batch 1"), ", ".join(values)])
    return aligned(rows)
