"""Registers an RLDS data set as a robot task by its columns: all that differs between data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import seqio
import tensorflow as tf

from rt2_jax.actions.space import ActionSpace
from rt2_jax.data.columns import Column, parse_column
from rt2_jax.data.registration import robot_task
from rt2_jax.data.rlds_reader import EPISODE_ID, rlds_source
from rt2_jax.data.task_info import ROBOT_PROMPT

_ALL_STEPS = 1 << 30


@dataclass(frozen=True)
class RldsColumns:
    """Where a step's fields stand in an RLDS data set; columns as `parse_column` reads them.

    Attributes:
      views: name of a view -> path of its picture, in order.
      text: column of the instruction; episodes without one are left out.
      action: columns whose numbers, one after the other, are the action.
      terminate: column of RT-2's first field, 1 to go on; None where the space has none.
      state: columns of the proprioceptive state.
      keep: path of an episode's flag that must be true, or None.
      skip_first: steps that are left out at an episode's start.
      every: keeps every n-th step, before anything is computed.
      skip_last: steps that are left out at the end, after columns have looked at them.
    """

    views: Mapping[str, str]
    text: str
    action: tuple[str, ...]
    terminate: str | None = "is_terminal | invert"
    state: tuple[str, ...] = ()
    keep: str | None = None
    skip_first: int = 0
    every: int = 1
    skip_last: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "action", tuple(self.action))
        object.__setattr__(self, "state", tuple(self.state))
        if self.skip_first < 0 or self.skip_last < 0 or self.every < 1:
            raise ValueError(
                f"columns of {list(self.views)}: found skip_first {self.skip_first}, skip_last "
                f"{self.skip_last}, every {self.every}; expected 0, 0 and 1 or more"
            )
        self._parsed()  # an unknown transform is found when the task is registered

    def _parsed(self) -> tuple[Column, list[Column], list[Column]]:
        action = [*([self.terminate] if self.terminate else []), *self.action]
        parsed = [[parse_column(text) for text in texts] for texts in (action, self.state)]
        return parse_column(self.text), parsed[0], parsed[1]

    @property
    def fields(self) -> tuple[str, ...]:
        """Paths below a step of all that is read."""
        text, action, state = self._parsed()
        paths = [*self.views.values(), *(column.path for column in (text, *action, *state))]
        return tuple(dict.fromkeys(path for path in paths if path))

    def steps(self, task: str, *, action_width: int, state_width: int) -> Any:
        """The preprocessor from RLDS episodes to a task's steps.

        An episode is held as a whole, its pictures encoded. A step that is left out hands its
        terminate on to the last kept step before it, so that an episode that ended still ends.

        Args:
          task: its name, for messages.
          action_width: D, with terminate.
          state_width: S.

        Raises (when the data set is read):
          ValueError: a field is missing, or the columns give another number of numbers.
        """
        text, action, state = self._parsed()

        def read(episode: Mapping[str, Any]) -> dict[str, Any]:
            paths = (*self.fields, *((self.keep,) if self.keep else ()))
            for path in paths:
                found = _paths(episode if path == self.keep else episode["steps"].element_spec)
                if path not in found:
                    raise ValueError(
                        f"task {task!r}: the data set has no field {path!r}; it has "
                        f"{', '.join(sorted(found))}"
                    )
            steps = episode["steps"].map(
                lambda step: {path: _paths(step)[path] for path in self.fields}
            )
            return {"steps": steps, "id": episode[EPISODE_ID]}

        def whole(episode: Mapping[str, Any]) -> tf.data.Dataset:
            steps = episode["steps"].batch(_ALL_STEPS)
            return steps.map(lambda steps: {**columns(steps), "episode_id": episode["id"]})

        def columns(steps: Mapping[str, Any]) -> dict[str, Any]:
            length = tf.shape(next(iter(steps.values())))[0]
            kept = tf.range(self.skip_first, length, self.every)
            chosen = {path: tf.gather(field, kept) for path, field in steps.items()}
            numbers = [column.numbers(chosen) for column in action]
            if self.terminate:
                numbers[0] = _hand_on(action[0].numbers(steps), kept, self.skip_last)
            result = {
                "images": tf.stack([chosen[path] for path in self.views.values()], axis=1),
                "text": text.texts(chosen),
                "action": _joined(task, "action", numbers, action_width),
                "state": _joined(task, "state", [c.numbers(chosen) for c in state], state_width),
            }
            if not state:
                del result["state"]
            end = tf.maximum(tf.size(kept) - self.skip_last, 0)
            return {name: column[:end] for name, column in result.items()}

        def said_something(episode: Mapping[str, Any]) -> tf.Tensor:
            first = tf.strings.strip(episode["text"][:1])
            return tf.reduce_any(first != "")

        def to_steps(number: tf.Tensor, episode: Mapping[str, Any]) -> tf.data.Dataset:
            columns = {name: value for name, value in episode.items() if name != "episode_id"}
            return (
                tf.data.Dataset.from_tensor_slices(columns)
                .enumerate()
                .map(
                    lambda index, step: {
                        **step,
                        "episode": number,
                        "step": index,
                        "episode_id": episode["episode_id"],
                    }
                )
            )

        def preprocess(dataset: tf.data.Dataset) -> tf.data.Dataset:
            if self.keep:
                dataset = dataset.filter(lambda episode: _paths(episode)[self.keep])
            episodes = dataset.map(read).flat_map(whole).filter(said_something)
            return episodes.enumerate().flat_map(to_steps)

        # Nothing in it is Python that TensorFlow would have to rewrite.
        return tf.autograph.experimental.do_not_convert(preprocess)


def _paths(fields: Any, above: str = "") -> dict[str, Any]:
    """Path -> leaf of nested fields; a field's own name may hold slashes, too."""
    if not isinstance(fields, Mapping):
        return {above: fields}
    below = f"{above}/" if above else ""
    return {p: leaf for key in fields for p, leaf in _paths(fields[key], f"{below}{key}").items()}


def _joined(task: str, what: str, numbers: Sequence[tf.Tensor], width: int) -> tf.Tensor:
    joined = tf.concat(numbers, axis=1) if numbers else tf.zeros([0, 0])
    if numbers and joined.shape[1] != width:
        raise ValueError(
            f"task {task!r}: the columns of {what} give {joined.shape[1]} numbers "
            f"({[column.shape[1] for column in numbers]}), expected {width}"
        )
    return joined


def _hand_on(terminate: tf.Tensor, kept: tf.Tensor, skip_last: int) -> tf.Tensor:
    """Terminate [K, 1] of the kept steps, of that of all steps [T, 1].

    Where any step from a kept one up to the next kept one ends the episode, it does.
    """
    count = tf.size(kept)
    steps = tf.range(tf.shape(terminate)[0])
    group = tf.searchsorted(kept, steps, side="right") - 1
    group = tf.minimum(group, tf.maximum(count - skip_last, 1) - 1)
    counted = group >= 0
    ended = tf.math.unsorted_segment_min(terminate[counted], group[counted], count)
    return tf.minimum(ended, 1.0)


def rlds_task(
    name: str,
    directory: str,
    splits: Mapping[str, str],
    columns: RldsColumns,
    *,
    embodiment: str,
    action_space: ActionSpace,
    state_fields: Sequence[str] = (),
    image_size: tuple[int, int] | None = None,
    prompt: str = ROBOT_PROMPT,
) -> seqio.Task:
    """Registers an RLDS data set by its columns; nothing is read.

    Args:
      name: of the task.
      directory: with `features.json`; relative to `data_path`.
      splits: name -> split of the data set.
      columns: where the fields stand.
      embodiment: the robot; with the action space it is the key of the statistics.
      action_space: of the columns' numbers.
      state_fields: names of the numbers of `columns.state`.
      image_size: (height, width) of every picture; None for any.
      prompt: of the model.

    Raises:
      ValueError: the name is registered already, or what `TaskInfo` refuses.
    """
    return robot_task(
        name,
        rlds_source(directory, splits, fields=columns.fields),
        embodiment=embodiment,
        action_space=action_space,
        views=list(columns.views),
        state_fields=state_fields,
        image_size=image_size,
        read_from=directory,
        prompt=prompt,
        preprocessors=[
            columns.steps(
                name, action_width=action_space.dimension, state_width=len(state_fields)
            )
        ],
    )
