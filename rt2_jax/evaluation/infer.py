"""Answers to cached steps, or scores of recorded ones, as files of JSON lines: T5X's `infer`."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rt2_jax.data.cache import StepCache
from rt2_jax.data.manifest import MixtureTask
from rt2_jax.evaluation.cached_tasks import open_cached_tasks, task_examples
from rt2_jax.evaluation.offline import Report, spread
from rt2_jax.inference.engine import PolicyEngine

MODES = ("predict", "score")
Features = Mapping[str, np.ndarray]


def infer(
    engine: PolicyEngine,
    cache_dir: str | pathlib.Path,
    output_dir: str | pathlib.Path,
    tasks: Sequence[str] = (),
    *,
    split: str = "validation",
    mode: str = "predict",
    limit: int | None = None,
    shard_id: int = 0,
    num_shards: int = 1,
    report: Report = lambda task, done, total: None,
) -> list[pathlib.Path]:
    """Writes `output_dir/TASK-MODE.jsonl-00000-of-00001` for each task, as T5X names them.

    A line has `step` (number in the split), `episode_id`, `inputs` (the text), `targets` (what was
    recorded: an answer, or the plan and the actions, native units) and either `prediction` (an
    answer, or plan, actions and their log-probability) or `score`, the log-probability of the
    targets' tokens, the end's included. A file appears when it is whole.

    Args:
      engine: of the checkpoint.
      cache_dir: where the caches are.
      output_dir: is made if need be.
      tasks: of the checkpoint's mixture, or its name; all by default.
      split: that is cached there.
      mode: of `MODES`.
      limit: steps of each task, evenly spread over the split; None takes all.
      shard_id: which part of the steps this process takes, every `num_shards`-th.
      num_shards: into how many they are divided.
      report: is told of the progress.

    Raises:
      KeyError, FileNotFoundError: as of `open_cached_tasks`.
      ValueError: another mode, numbers out of their range, a task that the model has no words for,
        or what `open_cached_tasks` refuses. All is checked before the first step is answered.
    """
    if mode not in MODES:
        raise ValueError(f"mode: found {mode!r}, expected one of {', '.join(MODES)}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit: found {limit}, expected 1 or more steps")
    if not 0 <= shard_id < num_shards:
        raise ValueError(
            f"shard_id: found {shard_id} of {num_shards} shards, expected 0 to below their number"
        )
    work = open_cached_tasks(engine.description, cache_dir, tasks, split)
    directory = pathlib.Path(output_dir)
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for entry, cache in work:
        chosen = spread(len(cache), limit)[shard_id::num_shards]
        file = directory / f"{entry.info.name}-{mode}.jsonl-{shard_id:05d}-of-{num_shards:05d}"
        unfinished = file.with_name(f"{file.name}.incomplete")
        with unfinished.open("w", encoding="utf-8") as lines:
            for line in _lines(engine, entry, cache, chosen, mode, report):
                lines.write(json.dumps(line, allow_nan=False) + "\n")
        unfinished.rename(file)
        files.append(file)
    return files


def _lines(
    engine: PolicyEngine,
    entry: MixtureTask,
    cache: StepCache,
    chosen: np.ndarray,
    mode: str,
    report: Report,
) -> Iterator[dict[str, Any]]:
    examples = task_examples(engine.description, entry, cache)
    recorded = _recorded(engine, entry, cache)
    answer = _scores if mode == "score" else _predictions
    size = engine.batch_sizes[-1]
    for first in range(0, len(chosen), size):
        numbers = [int(number) for number in chosen[first : first + size]]
        batch = [examples.example(number) for number in numbers]
        for number, found in zip(numbers, answer(engine, entry, batch), strict=True):
            step = cache[number]
            yield {
                "step": number,
                "episode_id": step.episode_id,
                "inputs": step.text,
                "targets": recorded(number),
                mode if mode == "score" else "prediction": found,
            }
        report(entry.info.name, first + len(numbers), len(chosen))


def _scores(engine: PolicyEngine, entry: MixtureTask, batch: Sequence[Features]) -> list[float]:
    return [float(score) for score in engine.score(batch)]


def _predictions(engine: PolicyEngine, entry: MixtureTask, batch: Sequence[Features]) -> list[Any]:
    observed = [engine.description.model_inputs.observed(example) for example in batch]
    if entry.info.robot is None:
        return list(engine.decode_text(observed))
    plans, tokens, scores = engine.decode_actions(observed, entry.info)
    codec = engine.action_tokens(entry.info)
    return [
        {
            "plan": plan,
            "actions": codec.codec.decode(codec.from_ids(row.tolist())).tolist(),
            "score": float(score),
        }
        for plan, row, score in zip(plans, tokens, scores, strict=True)
    ]


def _recorded(
    engine: PolicyEngine, entry: MixtureTask, cache: StepCache
) -> Callable[[int], str | dict[str, Any]]:
    """What was recorded of a step: an answer; or plan and actions, up to the episode's end."""
    if entry.info.robot is None:
        return lambda number: cache[number].target
    horizon = engine.action_tokens(entry.info).codec.codec.horizon

    def actions(number: int) -> dict[str, Any]:
        steps = [cache[number]]
        for later in range(number + 1, min(number + horizon, len(cache))):
            following = cache[later]
            if following.step == 0:
                break
            steps.append(following)
        return {"plan": steps[0].target, "actions": [step.action.tolist() for step in steps]}

    return actions
