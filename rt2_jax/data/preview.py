"""What is registered, and steps as the text and tokens of a model: for people, before caching."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import seqio

from rt2_jax.actions.binning import UniformBins
from rt2_jax.actions.codec import BoundCodec
from rt2_jax.actions.statistics import compute_statistics, resolve_bounds
from rt2_jax.data.registration import data_path, step_format
from rt2_jax.data.resolve import find_tasks
from rt2_jax.data.step_reader import read_steps
from rt2_jax.data.task_info import RobotInfo
from rt2_jax.data.vocabulary.tokenizer import Tokenizer

_STATISTICS_STEPS = 1000  # enough to look at tokens; caching takes them all


def describe_registry() -> Iterator[str]:
    """A few lines for each registered task, one for each mixture."""
    for name in sorted(seqio.TaskRegistry.names()):
        task = seqio.TaskRegistry.get(name)
        form = step_format(task)
        path = data_path(form.read_from)
        there = str(path) if path.exists() else f"not on this disk, would be read from {path}"
        yield f"task {name}: splits {', '.join(task.splits)}; {there}"
        robot = form.info.robot
        if robot:
            space = robot.action_space
            bounds = "from statistics" if robot.needs_statistics else "fixed"
            yield (
                f"  robot {robot.embodiment}, action space {space.name} ({space.dimension} fields, "
                f"{space.control_rate_hz:g} Hz, bounds {bounds}), views "
                f"{', '.join(form.info.views)}"
            )
        yield f"  prompt {form.info.prompt!r}"
    for name in sorted(seqio.MixtureRegistry.names()):
        shares = [f"{task.name} {share:.1%}" for task, share in find_tasks(name)]
        yield f"mixture {name}: {', '.join(shares)}"


def describe_tokens(name: str, split: str, steps: int, tokenizer: Tokenizer) -> Iterator[str]:
    """The first steps of each task of a mixture: prompt and target, as text and token ids.

    Actions are written by RT-2's codec. Bounds that need statistics are those of the first
    thousand steps.

    Raises:
      KeyError: no such task or mixture. ValueError: a step that cannot be used.
    """
    for task, _ in find_tasks(name):
        info = step_format(task).info
        codec = None
        if info.robot:
            codec, count = _codec(task, split, info.robot)
            if count:
                yield f"{task.name}: bounds from its first {count} steps"
        for step in itertools.islice(read_steps(task, split), steps):
            step.check(info)
            target = step.target
            if codec:
                target = codec.to_text(codec.encode(step.action[None]).levels)
            yield f"{task.name}, episode {step.episode} ({step.episode_id}), step {step.step}"
            for what, text in (("prompt", info.fill_prompt(step.text)), ("target", target)):
                ids = tokenizer.encode(text)
                yield f"  {what} {text!r}: {len(ids)} tokens {ids}"


def _codec(task: seqio.Task, split: str, robot: RobotInfo) -> tuple[BoundCodec, int]:
    """The codec and how many steps its bounds are from; 0 where they are fixed."""
    space, statistics = robot.action_space, None
    if robot.needs_statistics:
        steps = itertools.islice(read_steps(task, split), _STATISTICS_STEPS)
        statistics = compute_statistics(space, robot.embodiment, [step.action for step in steps])
    codec = UniformBins().bind(space, resolve_bounds(space, statistics))
    return codec, statistics.count if statistics else 0
