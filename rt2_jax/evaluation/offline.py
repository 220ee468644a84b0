"""Offline evaluation: free-running answers on cached steps against what was recorded."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rt2_jax.actions.tokens import ActionTokens
from rt2_jax.data.cache import StepCache
from rt2_jax.data.examples import TaskExamples
from rt2_jax.data.manifest import MixtureTask
from rt2_jax.data.task_info import TaskInfo
from rt2_jax.evaluation.cached_tasks import open_cached_tasks
from rt2_jax.evaluation.success import SuccessRate
from rt2_jax.evaluation.web_report import Report, WebReport, web_report
from rt2_jax.inference.engine import PolicyEngine

OFFLINE_BATCH = 32


@dataclass(frozen=True)
class Accuracy:
    """How near chunks of actions come to the recorded ones.

    Attributes:
      mean_error: absolute, float64 [D], each field's unit; of a discrete field in levels.
      median_error: as `mean_error`.
      field_accuracy: share of equal tokens, float64 [D].
      token_accuracy: of all fields but `terminate`.
      exact: actions all of whose tokens are equal, `terminate` included.
    """

    mean_error: np.ndarray
    median_error: np.ndarray
    field_accuracy: np.ndarray
    token_accuracy: float
    exact: SuccessRate


@dataclass(frozen=True)
class RobotReport:
    """A robot task's result.

    Attributes:
      task: as the checkpoint knows it.
      steps: that were asked for; with chunks of K actions, up to K actions each.
      policy: of the checkpoint.
      median: of always answering the median action of the training split.
      clipped: int64 [D]; how many recorded values lie outside the checkpoint's bounds. No token
        says these exactly.
      actions: that were compared.
    """

    task: TaskInfo
    steps: int
    policy: Accuracy
    median: Accuracy
    clipped: np.ndarray
    actions: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        assert self.task.robot is not None
        fields = self.task.robot.action_space.fields
        return {
            "task": self.task.name,
            "kind": "robot",
            "steps": self.steps,
            "actions": self.actions,
            "fields": [
                {
                    "name": field.name,
                    "unit": field.unit,
                    "clipped": int(self.clipped[i]),
                    **{
                        who: {
                            "mean_error": float(accuracy.mean_error[i]),
                            "median_error": float(accuracy.median_error[i]),
                            "token_accuracy": float(accuracy.field_accuracy[i]),
                        }
                        for who, accuracy in (("policy", self.policy), ("median", self.median))
                    },
                }
                for i, field in enumerate(fields)
            ],
            **{
                who: {
                    "token_accuracy_without_terminate": accuracy.token_accuracy,
                    "exact_actions": accuracy.exact.to_json(),
                }
                for who, accuracy in (("policy", self.policy), ("median", self.median))
            },
        }


def evaluate_offline(
    engine: PolicyEngine,
    cache_dir: str | pathlib.Path,
    tasks: Sequence[str] = (),
    *,
    split: str = "validation",
    limit: int | None = None,
    report: Report = lambda task, done, total: None,
) -> list[RobotReport | WebReport]:
    """Answers cached steps from their pictures and texts alone, and compares.

    Prompts, bounds and statistics are the checkpoint's; nothing is taken from the held-out split
    but its steps.

    Args:
      engine: of the checkpoint; larger batch sizes are faster, `OFFLINE_BATCH` is good.
      cache_dir: where the caches are.
      tasks: of the checkpoint's mixture, or its name; all by default.
      split: that is cached there.
      limit: steps of each task, evenly spread over the split; None takes all.
      report: is told of the progress.

    Raises:
      KeyError: the checkpoint was not trained on such a task.
      FileNotFoundError: a split is not cached; the message has the command.
      ValueError: a cache of other actions, views or prompts than the checkpoint's, or a damaged
        one. All of it is checked before the first step is answered.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit: found {limit}, expected 1 or more steps")
    work = []
    for entry, cache in open_cached_tasks(engine.description, cache_dir, tasks, split):
        median = None
        if entry.info.robot is not None:
            median = _training_median(engine, cache_dir, entry)
        work.append((entry.info, cache, median))
    reports: list[RobotReport | WebReport] = []
    for number, (info, cache, median) in enumerate(work):
        chosen = spread(len(cache), limit)
        if info.robot is None:
            reports.append(web_report(engine, number, info, cache, chosen, report))
        else:
            assert median is not None
            reports.append(_robot_report(engine, number, cache, chosen, median, report))
    return reports


def spread(total: int, limit: int | None) -> np.ndarray:
    """The numbers of at most `limit` steps, evenly spread over `total`."""
    count = total if limit is None else min(limit, total)
    return np.arange(count) * total // max(count, 1)


def _training_median(
    engine: PolicyEngine, cache_dir: str | pathlib.Path, entry: MixtureTask
) -> np.ndarray:
    """The median action float32 [D] of the split that the checkpoint was trained on."""
    if entry.cache_hash is None:
        raise ValueError(
            f"the checkpoint was trained without a cache of task {entry.info.name!r}, so there is "
            "no median of its actions to compare with"
        )
    cache = StepCache(cache_dir, entry.info.name, engine.description.manifest.split)
    if cache.info.hash != entry.cache_hash:
        raise ValueError(
            f"{cache.directory} is not the cache that the checkpoint was trained on (hash "
            f"{cache.info.hash[:12]}, expected {entry.cache_hash[:12]}); its median action is the "
            "baseline: bring the old cache back"
        )
    # One that exists: between 0 and 1 there is no level.
    return np.quantile(cache.actions(), 0.5, axis=0, method="lower").astype(np.float32)


def _examples(
    examples: TaskExamples, chosen: np.ndarray, size: int
) -> Iterator[list[Mapping[str, np.ndarray]]]:
    for first in range(0, len(chosen), size):
        yield [examples.example(int(index)) for index in chosen[first : first + size]]


def _robot_report(
    engine: PolicyEngine,
    number: int,
    cache: StepCache,
    chosen: np.ndarray,
    median: np.ndarray,
    report: Report,
) -> RobotReport:
    info = cache.info.task
    codec = engine.action_tokens(info)
    horizon, dimension = codec.codec.codec.horizon, len(median)
    description = engine.description
    spec, observed = description.inputs, description.model_inputs.observed
    first = spec.answer_start + spec.plan_length
    examples = TaskExamples(
        number, cache, description.model_inputs, codec, description.state_text(info)
    )
    recorded = cache.actions()
    found, expected, truth = [], [], []
    done = 0
    for batch in _examples(examples, chosen, engine.batch_sizes[-1]):
        _, tokens, _ = engine.decode_actions([observed(example) for example in batch], info)
        for example, row in zip(batch, tokens, strict=True):
            # What counts in the loss: the chunk up to the episode's end, and an end token.
            weight = int(example["decoder_loss_weights"][first:].sum()) - spec.answer_end
            count = weight // dimension
            target = example["decoder_target_tokens"][first:][: horizon * dimension]
            found.append(codec.from_ids(row.tolist())[:count])
            expected.append(codec.from_ids(target.tolist())[:count])
            truth.append(recorded[chosen[done] : chosen[done] + count])
            done += 1
        report(info.name, done, len(chosen))
    levels, targets, actions = map(np.concatenate, (found, expected, truth))
    chunk = np.tile(median, (horizon, 1))
    baseline = np.broadcast_to(codec.codec.encode(chunk).levels[0], levels.shape)
    return RobotReport(
        task=info,
        steps=len(chosen),
        policy=_accuracy(codec, levels, targets, actions),
        median=_accuracy(codec, baseline, targets, actions),
        clipped=codec.codec.bounds.outside(actions).sum(axis=0),
        actions=len(actions),
    )


def _accuracy(
    codec: ActionTokens, levels: np.ndarray, targets: np.ndarray, actions: np.ndarray
) -> Accuracy:
    """Of levels and recorded levels int [N, D], and recorded actions float32 [N, D]."""
    bound = codec.codec
    chunks = np.repeat(levels[:, None], bound.codec.horizon, axis=1)
    errors = np.abs(bound.decode(chunks)[:, 0].astype(np.float64) - actions)
    equal = levels == targets
    judged = [name != "terminate" for name in bound.space.names]
    return Accuracy(
        mean_error=errors.mean(axis=0),
        median_error=np.median(errors, axis=0),
        field_accuracy=equal.mean(axis=0),
        token_accuracy=float(equal[:, judged].mean()),
        exact=SuccessRate(int(equal.all(axis=1).sum()), len(equal)),
    )
