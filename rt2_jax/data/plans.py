"""Chain of thought: tasks whose steps have a plan, made of registered tasks without one.

RT-2, section 4.4: `Instruction: I'm hungry. Plan: pick rxbar chocolate. Action: 1 128 124 136 121
158 111 255.` The prompt ends with `Plan:`; the plan and `Action:` behind it are what the model
writes, and then the action (see `InputSpec.plan_length`).
"""

from __future__ import annotations

import functools
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import seqio
import tensorflow as tf

from rt2_jax.data.coco import load_json
from rt2_jax.data.prompts import PLAN_PROMPT
from rt2_jax.data.registration import data_path, derive_task, step_format

_LOG = logging.getLogger("rt2_jax.data")

PlanSource = Callable[[Mapping[str, Any]], str | None]
"""From a step to its plan, None or "" where it has none.

A step has `text`, `episode_id`, `episode`, `step`, `images`, `action` and what else its task's
preprocessors give (`state`, `target`, columns), as strings and arrays. `episode` is the number in
the split of RLDS and LeRobot data sets; other sources may count the episodes of each shard.
"""


def with_plans(
    task: str,
    name: str,
    plans: PlanSource,
    *,
    prompt: str = PLAN_PROMPT,
    target: str = "{plan}. Action:",
    missing: Literal["refuse", "leave_out"] = "refuse",
) -> seqio.Task:
    """Registers the chain-of-thought task of a registered robot task.

    Args:
      task: the name of the registered one.
      name: of the new one.
      plans: where a step's plan comes from: `plan_column`, `PlanFile`, or a function of your own.
      prompt: of the model; by default RT-2's.
      target: what the model writes before the action; `{plan}` is the plan without a full stop at
        its end.
      missing: what a step without a plan does: `refuse` raises an error that names it, `leave_out`
        leaves it out and logs how many there were. Each run of steps that are left becomes an
        episode of its own, so that frames of before and chunks of actions never reach over a gap.

    Raises:
      KeyError, ValueError: no such task, the new name is registered already, or another `missing`.
    """
    if missing not in ("refuse", "leave_out"):
        raise ValueError(
            f"task {name!r}: missing: found {missing!r}, expected 'refuse' or 'leave_out'"
        )
    if step_format(seqio.TaskRegistry.get(task)).info.robot is None:
        raise ValueError(f"task {name!r}: {task!r} is no robot task, so it has no actions to plan")

    def steps(dataset: tf.data.Dataset) -> Iterator[dict[str, Any]]:
        left_out = used = episode = number = 0
        before: tuple[int, int] | None = None
        named: dict[str, int] = {}
        for step in dataset.as_numpy_iterator():
            readable = {key: _readable(value) for key, value in step.items()}
            if isinstance(plans, PlanFile):
                other = named.setdefault(readable["episode_id"], int(step["episode"]))
                if other != step["episode"]:
                    raise ValueError(
                        f"task {name!r}: episodes {other} and {step['episode']} are both called "
                        f"{readable['episode_id']!r}, which plans by episode id cannot tell apart; "
                        "give a function of the step, which sees `episode`, instead of a file"
                    )
            plan = (plans(readable) or "").strip()
            if plan:
                here = (int(step["episode"]), int(step["step"]))
                follows = before == (here[0], here[1] - 1)
                number = number + 1 if follows else 0
                episode += not follows and before is not None
                before = here
                used += 1
                words = target.replace("{plan}", plan.removesuffix("."))
                yield {**step, "target": words.encode(), "episode": episode, "step": number}
            elif missing == "refuse":
                raise ValueError(
                    f"task {name!r}, episode {step['episode']} ({readable['episode_id']!r}), step "
                    f"{step['step']}: no plan; give it one, or register the task with "
                    "missing='leave_out'"
                )
            else:
                left_out += 1
        if left_out:
            _LOG.warning(
                "task %s: %d of %d steps have no plan and are left out",
                name,
                left_out,
                left_out + used,
            )

    def preprocess(dataset: tf.data.Dataset) -> tf.data.Dataset:
        spec = {**dataset.element_spec, "target": tf.TensorSpec([], tf.string)}
        return tf.data.Dataset.from_generator(lambda: steps(dataset), output_signature=spec)

    # Shards of a source are cached one by one, so two of them are compared afterwards.
    by_id = isinstance(plans, PlanFile)
    return derive_task(
        task, name, prompt=prompt, preprocessors=[preprocess], unique_episode_ids=by_id
    )


def _readable(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def plan_column(column: str) -> PlanSource:
    """Plans that stand in a column of the steps: `target`, or one of the task's `columns`."""

    def plan(step: Mapping[str, Any]) -> str:
        if column not in step:
            raise ValueError(
                f"no column {column!r} for plans; the steps have {', '.join(sorted(step))}. A task "
                "keeps a column that its preprocessors give and its `columns` name"
            )
        return str(step[column])

    return plan


class PlanFile:
    """Plans of a JSON file by `episode_id`, read when the first one is asked for.

    An episode's value is one plan for all of its steps; or a list of one plan for each; or an
    object from steps, counted from 0, to plans: `{"0-9": "reach the cup", "10": "grasp it", "11-":
    "lift it"}`. `null` and steps that are not there have no plan.

    Attributes:
      path: relative to `data_path`.

    Raises (when plans are asked for):
      FileNotFoundError: no such file.
      ValueError: no JSON object of such values; the message names the episode.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self, step: Mapping[str, Any]) -> str | None:
        """The plan of a step, None where the file has none."""
        file = data_path(self.path)
        changed = file.stat().st_mtime_ns if file.exists() else 0
        found = _load_plans(file, changed).get(step["episode_id"])
        where, number = f"{file}: episode {step['episode_id']!r}", int(step["step"])
        if isinstance(found, list):
            found = found[number] if number < len(found) else None
        elif isinstance(found, dict):
            matches = [plan for key, plan in found.items() if _holds(key, number, where)]
            if len(matches) > 1:
                raise ValueError(f"{where}: step {number} has {len(matches)} plans, expected one")
            found = matches[0] if matches else None
        if found is not None and not isinstance(found, str):
            raise ValueError(f"{where}: found {found!r} of step {number}, expected a plan in words")
        return found


@functools.lru_cache(maxsize=8)
def _load_plans(file: pathlib.Path, changed: int) -> Mapping[str, Any]:
    """The file's plans; `changed` is its time, so that an edited one is read again."""
    plans = load_json(file)
    if not isinstance(plans, dict):
        raise ValueError(
            f"{file}: found a {type(plans).__name__}, expected an object of plans by episode id"
        )
    return plans


def _holds(key: str, number: int, where: str) -> bool:
    first, dash, last = key.partition("-")
    try:
        return int(first) <= number <= (int(last or number) if dash else int(first))
    except ValueError:
        raise ValueError(
            f"{where}: found the steps {key!r}, expected such as '3', '3-7' or '3-'"
        ) from None
