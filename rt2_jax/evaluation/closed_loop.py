"""Closed-loop evaluation: how often a policy succeeds, with intervals, on the same scenes."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rt2_jax.data.recording import RecordingInfo
from rt2_jax.evaluation.policy_sources import LocalPolicy, PolicySource, RemotePolicySource
from rt2_jax.evaluation.results import EpisodeResult, ResultsFile, read_results
from rt2_jax.evaluation.rollouts import PATIENCE_S, play_scenes
from rt2_jax.evaluation.success import PairedComparison, SuccessRate, compare
from rt2_jax.evaluation.suite import Suite

_SESSIONS = 8  # at once against one model, so that its batches fill
_UNCHANGED = ("world_hash", "simulation_version")  # must be equal for scenes to be the same


@dataclass(frozen=True)
class Evaluation:
    """The results of one policy, in the order of the suite's scenes.

    Attributes:
      policy: its name.
      identity: what decides an episode besides its scene; see `results.IDENTITY`.
      results: one for each episode.
    """

    policy: str
    identity: Mapping[str, Any]
    results: tuple[EpisodeResult, ...]

    @property
    def skills(self) -> tuple[str, ...]:
        """The skills that were played, in order."""
        return tuple(dict.fromkeys(result.skill for result in self.results))

    def of_skill(self, skill: str) -> tuple[EpisodeResult, ...]:
        """The results of a skill."""
        return tuple(result for result in self.results if result.skill == skill)

    def rate(self, skill: str) -> SuccessRate:
        """The successes of a skill."""
        results = self.of_skill(skill)
        return SuccessRate(sum(result.success for result in results), len(results))

    def compare(self, other: Evaluation) -> dict[str, PairedComparison]:
        """McNemar's test of each skill against another policy on the same scenes.

        Raises:
          ValueError: the scenes are not the same.
        """
        for key in _UNCHANGED:
            if self.identity[key] != other.identity[key]:
                raise ValueError(
                    f"{self.policy} and {other.policy}: their scenes are not the same: {key} is "
                    f"{self.identity[key]!r} and {other.identity[key]!r}"
                )
        return {
            skill: compare(
                *({r.scene: r.success for r in side.of_skill(skill)} for side in (self, other))
            )
            for skill in dict.fromkeys((*self.skills, *other.skills))
        }

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: the success of each skill, and what it took."""
        return {
            **self.identity,
            "skills": {skill: self._skill_json(skill) for skill in self.skills},
        }

    def _skill_json(self, skill: str) -> dict[str, Any]:
        results = self.of_skill(skill)
        p50, p95 = latency_percentiles(results)
        seeds = [result.seed for result in results]
        return {
            **self.rate(skill).to_json(),
            "seeds": [min(seeds), max(seeds)],
            "steps_mean": float(np.mean([result.steps for result in results])),
            "terminated": sum(result.ended == "terminated" for result in results),
            "latency_ms_p50": p50,
            "latency_ms_p95": p95,
            "steps_clipped": sum(sum(result.clipped.values()) for result in results),
            "restarts": sum(result.restarts for result in results),
        }

    def table(self) -> str:
        """The successes for a person, one line for each skill."""
        rows = [("policy", "told", "skill", "success", "95 % interval", "steps", "latency p50/p95")]
        told = {"original": "its own object", "swapped": "another's name"}
        for skill in self.skills:
            rate, numbers = self.rate(skill), self._skill_json(skill)
            low, high = rate.interval
            latency = f"{numbers['latency_ms_p50']:.1f} / {numbers['latency_ms_p95']:.1f} ms"
            rows.append(
                (
                    self.policy,
                    told[self.identity["instruction_mode"]],
                    skill,
                    f"{rate.successes}/{rate.trials} = {rate.rate:.0%}",
                    f"{low:.1%} to {high:.1%}",
                    f"{numbers['steps_mean']:.1f}",
                    latency,
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        return "\n".join(lines)


def latency_percentiles(results: Iterable[EpisodeResult]) -> tuple[float, float]:
    """(p50, p95) of all answers, in milliseconds."""
    p50, p95 = np.percentile([ms for result in results for ms in result.latency_ms], (50, 95))
    return round(float(p50), 3), round(float(p95), 3)


def evaluate(
    suite: Suite,
    source: PolicySource | LocalPolicy,
    *,
    out: str | pathlib.Path | None = None,
    parallel: int | None = None,
    recordings: Sequence[RecordingInfo] = (),
    patience_s: float = PATIENCE_S,
    report: Callable[[int, int], None] = lambda done, successes: None,
    note: Callable[[str], None] = lambda text: None,
) -> Evaluation:
    """Plays the suite's scenes, or those that are missing in `out`.

    Args:
      suite: the scenes.
      source: whose policies play.
      out: a JSONL file, a line for each episode; written as they end. An evaluation that was
        interrupted goes on from it. Results of further scenes in it are kept.
      parallel: how many environments play at once; default: one for each processor, or 8 where one
        model answers all.
      recordings: what the policy may have been trained on.
      patience_s: how long a server may be away.
      report: is told how many episodes are done and how many of them succeeded: at the beginning,
        and after each.
      note: is told what a person should know.

    Raises:
      ValueError: recorded seeds, a file of another configuration, or an answer that is no action.
      ConnectionError: the server did not come back in time; what was played stays in `out`.
      OSError: `out` cannot be written, another evaluation writes it, or a process was killed.
    """
    for recording in recordings:
        suite.refuse_recorded_scenes(recording)
    if parallel is None:
        one_model = isinstance(source, (LocalPolicy, RemotePolicySource))
        parallel = _SESSIONS if one_model else os.cpu_count() or 1
    if parallel < 1:
        raise ValueError(f"parallel: found {parallel}, expected 1 or more")
    identity = {"policy": source.name, "policy_hash": source.policy_hash, **suite.identity()}
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(ResultsFile(out, identity)) if out is not None else None
        results = {} if file is None else dict(file.results)
        missing = [scene for scene in suite.scenes if scene not in results]
        played = [results[scene] for scene in suite.scenes if scene in results]
        done, successes = len(played), sum(result.success for result in played)
        report(done, successes)
        for result in play_scenes(
            suite, source, missing, parallel=parallel, patience_s=patience_s, note=note
        ):
            if file is not None:
                file.append(result)
            results[result.scene] = result
            done, successes = done + 1, successes + result.success
            report(done, successes)
    return Evaluation(source.name, identity, tuple(results[scene] for scene in suite.scenes))


def read_evaluation(path: str | pathlib.Path, scenes: Iterable[tuple[str, int]] = ()) -> Evaluation:
    """Reads a results file.

    Args:
      path: of the file.
      scenes: which of its results are wanted; all if absent.

    Raises:
      FileNotFoundError: no such file. ValueError: it is damaged or empty, or lacks a scene.
    """
    identity, results = read_results(path)
    by_scene = {result.scene: result for result in results}
    wanted = list(scenes) or list(by_scene)
    missing = [f"{skill}-{seed}" for skill, seed in wanted if (skill, seed) not in by_scene]
    if missing:
        raise ValueError(
            f"{path}: lacks {len(missing)} of the {len(wanted)} scenes ({', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}); finish that evaluation, or ask for its scenes"
        )
    return Evaluation(identity["policy"], identity, tuple(by_scene[scene] for scene in wanted))
