"""Registers an RLDS data set as a robot task by its columns: all that differs between data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import seqio
import tensorflow as tf

from rt2_jax.actions.space import ActionSpace
from rt2_jax.data.columns import Column, parse_column
from rt2_jax.data.instructions import InstructionEncoder
from rt2_jax.data.registration import robot_task
from rt2_jax.data.rlds_reader import EPISODE_ID, leaves, numbered_episodes, rlds_source
from rt2_jax.data.task_info import ROBOT_PROMPT

ALL_STEPS = 1 << 30
"""More than any episode has."""


@dataclass(frozen=True)
class RldsColumns:
    """Where a step's fields stand in an RLDS data set; columns as `parse_column` reads them.

    Attributes:
      views: name of a view -> path of its picture, in order.
      text: column of the instruction; episodes without one are left out.
      action: columns whose numbers, one after the other, are the action.
      terminate: column of RT-2's first field, 1 to go on; None where the space has none.
      state: columns of the proprioceptive state.
      instruction_embedding: column of the vector that is stored with the instruction, or None.
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
    instruction_embedding: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "action", tuple(self.action))
        object.__setattr__(self, "state", tuple(self.state))
        if self.skip_first < 0 or self.skip_last < 0 or self.every < 1:
            raise ValueError(
                f"columns of {list(self.views)}: found skip_first {self.skip_first}, skip_last "
                f"{self.skip_last}, every {self.every}; expected 0, 0 and 1 or more"
            )
        self.parsed()  # an unknown transform is found when the task is registered

    def parsed(self) -> tuple[Column, list[Column], list[Column]]:
        """The columns of the text, of the action with terminate, and of the state."""
        action = [*([self.terminate] if self.terminate else []), *self.action]
        parsed = [[parse_column(text) for text in texts] for texts in (action, self.state)]
        return parse_column(self.text), parsed[0], parsed[1]

    @property
    def fields(self) -> tuple[str, ...]:
        """Paths below a step of all that is read."""
        text, action, state = self.parsed()
        columns = [text, *action, *state]
        if self.instruction_embedding:
            columns.append(parse_column(self.instruction_embedding))
        paths = [*self.views.values(), *(column.path for column in columns)]
        return tuple(dict.fromkeys(path for path in paths if path))


class StepsOfColumns:
    """The preprocessor from RLDS episodes to a task's steps.

    It holds an episode at a time, its pictures encoded. A step that is left out hands its terminate
    on to the last kept step before it, so that an episode that ended still ends.
    """

    def __init__(
        self, task: str, columns: RldsColumns, *, action_width: int, state_width: int
    ) -> None:
        """See `rlds_task`; the widths are D, with terminate, and S."""
        self._task = task
        self._columns = columns
        self._widths = {"action": action_width, "state": state_width}
        self._text, self._action, self._state = columns.parsed()

    # Nothing here is Python that TensorFlow would have to rewrite.
    @tf.autograph.experimental.do_not_convert
    def __call__(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Steps of all episodes that are kept and say what is to be done.

        Raises:
          ValueError: a field is missing, or the columns give another number of numbers.
        """
        if self._columns.keep:
            flag: str = self._columns.keep
            self._check_has((flag,), dataset.element_spec)
            dataset = dataset.filter(lambda episode: leaves(episode)[flag])
        episodes = (
            numbered_episodes(dataset)
            .flat_map(self._whole)
            .filter(lambda episode: tf.reduce_any(tf.strings.strip(episode["text"][:1]) != ""))
        )
        return episodes.flat_map(_steps)

    def _whole(self, number: tf.Tensor, episode: Mapping[str, Any]) -> tf.data.Dataset:
        fields = self._columns.fields
        self._check_has(fields, episode["steps"].element_spec)

        def columns(steps: Mapping[str, Any]) -> dict[str, tf.Tensor]:
            found = leaves(steps)
            read = self.episode({path: found[path] for path in fields})
            return {
                **read,
                "episode": number,
                "episode_id": episode[EPISODE_ID],
            }

        # No `map` before `batch`: TensorFlow would fuse the two and set up a place for every step
        # of the largest batch.
        return episode["steps"].batch(ALL_STEPS).map(columns)

    def _check_has(self, paths: Sequence[str], spec: Any) -> None:
        found = leaves(spec)
        missing = [path for path in paths if path not in found]
        if missing:
            raise ValueError(
                f"task {self._task!r}: the data set has no field {missing[0]!r}; it has "
                f"{', '.join(sorted(found))}"
            )

    def episode(self, steps: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """The columns of one episode.

        Args:
          steps: path -> tensor [T, ...] of each field that is read.

        Returns:
          `images` string [K, views], `text` string [K], `action` float32 [K, D] of the K steps that
          are kept and, where there are some, `state` float32 [K, S] and `instruction_embedding`
          float32 [K, E].
        """
        columns = self._columns
        length = tf.shape(next(iter(steps.values())))[0]
        kept = tf.range(columns.skip_first, length, columns.every)
        end = tf.maximum(tf.size(kept) - columns.skip_last, 0)
        chosen = {path: tf.gather(field, kept) for path, field in steps.items()}
        action = [column.numbers(chosen) for column in self._action]
        if columns.terminate:
            action[0] = _hand_on(self._action[0].numbers(steps), kept, end)
        result = {
            "images": tf.stack([chosen[path] for path in columns.views.values()], axis=1),
            "text": self._text.texts(chosen),
            "action": self._joined("action", action),
        }
        if columns.instruction_embedding:
            vector = parse_column(columns.instruction_embedding).numbers(chosen)
            result["instruction_embedding"] = vector
        if self._state:
            state = [column.numbers(chosen) for column in self._state]
            result["state"] = self._joined("state", state)
        return {name: column[:end] for name, column in result.items()}

    def _joined(self, name: str, numbers: Sequence[tf.Tensor]) -> tf.Tensor:
        joined = tf.concat(numbers, axis=1)
        if joined.shape[1] != self._widths[name]:
            raise ValueError(
                f"task {self._task!r}: the columns of {name} give "
                f"{[column.shape[1] for column in numbers]} numbers, expected "
                f"{self._widths[name]} in all"
            )
        return joined


def _steps(episode: Mapping[str, Any]) -> tf.data.Dataset:
    of_all = {name: episode[name] for name in ("episode", "episode_id")}
    columns = {name: values for name, values in episode.items() if name not in of_all}
    steps = tf.data.Dataset.from_tensor_slices(columns).enumerate()
    return steps.map(lambda index, step: {**step, **of_all, "step": index})


def _hand_on(terminate: tf.Tensor, kept: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """Terminate [K, 1] of the kept steps, of that of all steps [T, 1].

    Where any step from a kept one up to the next kept one ends the episode, it does. Of the kept
    ones those from `end` on are left out.
    """
    steps = tf.range(tf.shape(terminate)[0])
    group = tf.minimum(tf.searchsorted(kept, steps, side="right"), end) - 1
    belongs = group >= 0
    return tf.math.unsorted_segment_min(terminate[belongs], group[belongs], tf.size(kept))


def rlds_task(
    name: str,
    directory: str,
    splits: Mapping[str, str],
    columns: RldsColumns,
    *,
    embodiment: str,
    action_space: ActionSpace,
    state_fields: Sequence[str] = (),
    state_bounds: Mapping[str, tuple[float, float]] | None = None,
    image_size: tuple[int, int] | None = None,
    prompt: str = ROBOT_PROMPT,
    loss_weight: float = 1.0,
    instruction_encoder: InstructionEncoder | None = None,
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
      state_bounds: as in `robot_task`.
      image_size: (height, width) of every picture; None for any.
      prompt: of the model.
      loss_weight: as in `robot_task`.
      instruction_encoder: of `columns.instruction_embedding`.

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
        state_bounds=state_bounds,
        image_size=image_size,
        read_from=directory,
        prompt=prompt,
        loss_weight=loss_weight,
        instruction_encoder=instruction_encoder,
        preprocessors=[
            StepsOfColumns(
                name, columns, action_width=action_space.dimension, state_width=len(state_fields)
            )
        ],
    )
