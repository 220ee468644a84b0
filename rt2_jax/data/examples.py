"""From a cached step, with its neighbours, to an example of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rt2_jax.actions.codec import ActionCodec
from rt2_jax.actions.tokens import ActionTokens
from rt2_jax.actions.vocabulary import ActionVocabulary
from rt2_jax.data.cache import StepSource
from rt2_jax.data.instructions import InstructionTable, merge_tables
from rt2_jax.data.manifest import Manifest
from rt2_jax.data.model_inputs import ImageSlot, ModelInputs
from rt2_jax.data.places import parse_places
from rt2_jax.data.state_text import StateText, fill_prompt
from rt2_jax.data.step import TaskStep


class TaskExamples:
    """The examples of one task by number: windows over neighbouring steps, prompts and tokens.

    It can be pickled, and so be sent to data workers.

    Args:
      source_id: the task's number in the manifest.
      cache: its steps.
      inputs: what makes the features.
      action_tokens: how a robot task's actions are written; None for a web task.
      state_text: how a robot task's state is written; None where the model reads none.

    Attributes:
      source_id: as given.
      name: of the task.

    Raises:
      ValueError: no view of a robot task is one of the model's, a text or chunk is too long, or
        nothing writes the state that the model reads. The message names the task.
    """

    def __init__(
        self,
        source_id: int,
        cache: StepSource,
        inputs: ModelInputs,
        action_tokens: ActionTokens | None,
        state_text: StateText | None = None,
    ) -> None:
        self.source_id = source_id
        self._cache = cache
        self._inputs = inputs
        self._tokens = action_tokens
        self._state_text = state_text
        self._task = cache.info.task
        self.name = self._task.name
        self._where = f"task {self.name!r}"
        slots = inputs.spec.image_slots
        self._slots: tuple[ImageSlot, ...] = slots[: len(self._task.views)]
        if action_tokens is not None:
            self._slots = tuple(slot for slot in slots if slot[0] in self._task.views)
            if not self._slots:
                raise ValueError(
                    f"{self._where} has the views {list(self._task.views)}, none of which is in "
                    f"the model's image slots {list(slots)}"
                )
            wanted = (inputs.spec.state_fields, inputs.spec.state_bins)
            written = (state_text.fields, state_text.bins) if state_text else ((), wanted[1])
            if written != wanted:
                raise ValueError(
                    f"{self._where}: the model reads the state {list(wanted[0])} in {wanted[1]} "
                    f"bins, and its examples are written with {list(written[0])} in {written[1]}"
                )
        self._instructions: InstructionTable | None = None
        if inputs.spec.instruction_dim:
            self._instructions = merge_tables([(self.name, cache.instructions())])
            if self._instructions.encoder.dim != inputs.spec.instruction_dim:
                raise ValueError(
                    f"{self._where}: its instructions' vectors have "
                    f"{self._instructions.encoder.dim} numbers, the model reads "
                    f"{inputs.spec.instruction_dim} (RT1Config.instruction_dim)"
                )
        self._check_lengths()

    def _check_lengths(self) -> None:
        """Encodes what is longest, so that nothing is found too long in the middle of a run."""
        info = self._cache.info
        before = ""
        if self._state_text is not None:
            encode = self._inputs.tokenizer.encode
            before = self._state_text.longest(lambda number: len(encode(number))) + " "
        for text in info.longest_texts if self._instructions is None else ():
            prompt = before + self._task.fill_prompt(text)
            self._inputs.observe({}, prompt, robot=False, where=self._where)
        if self._tokens is None:
            for target in info.longest_targets:
                self._inputs.answer(
                    self._inputs.tokenizer.encode(target), where=f"{self._where}: {target!r}"
                )
        else:
            codec = self._tokens.codec
            chunk = [self._inputs.tokenizer.eos_id] * codec.codec.horizon * codec.space.dimension
            spec = self._inputs.spec
            for plan in info.longest_targets if spec.plan_length else ("",):
                self._inputs.act(plan, chunk, where=self._where)
                if spec.robot_crop < 1 and parse_places(plan):
                    raise ValueError(
                        f"{self._where}: its plans name places in the picture ({plan!r}), which "
                        f"robot_crop {spec.robot_crop} would move; set one of robot_crop 1 and "
                        "plan_length 0"
                    )

    def __len__(self) -> int:
        return len(self._cache)

    @property
    def history(self) -> int:
        """How many steps before its own an example may read."""
        return max(-time for _, time in self._slots) if self._slots else 0

    def identity(self, index: int) -> dict[str, Any]:
        """What a data engineer finds an example by: its number, episode, step and text."""
        step = self._cache[index]
        return {
            "example": index,
            "episode": step.episode,
            "episode_id": step.episode_id,
            "step": step.step,
            "text": step.text,
        }

    def example(self, index: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """The features of one example: the batch's keys without its first axis.

        Args:
          index: of the step, from 0.
          rng: augments; None for evaluation.
        """
        step = self._cache[index]
        where = f"{self._where}, episode {step.episode} ({step.episode_id!r}), step {step.step}"
        observed = self._inputs.observe(
            self._images(index, step),
            fill_prompt(self._task, step.text, self._state_text, step.state, where),
            robot=self._tokens is not None,
            where=where,
            instruction_embedding=self._instructions.find(step.text, where)
            if self._instructions
            else None,
            rng=rng,
        )
        if self._tokens is None:
            answer = self._inputs.answer(self._inputs.tokenizer.encode(step.target), where=where)
        else:
            tokens, weighted = self._chunk(self._tokens, index, step)
            answer = self._inputs.act(step.target, tokens, weighted=weighted, where=where)
        dropout = self._inputs.spec.action_input_dropout
        if self._tokens is not None and rng is not None and dropout:
            shown = answer["decoder_input_tokens"]
            shown[rng.random(len(shown)) < dropout] = 0
        features = self._inputs.complete(observed, answer)
        features["source_id"] = np.array(self.source_id, np.int32)
        return features

    def _images(self, index: int, step: TaskStep) -> dict[ImageSlot, bytes]:
        if self._tokens is None:
            return dict(zip(self._slots, step.images, strict=True))
        steps = {0: step}
        for _, time in self._slots:
            if time not in steps and step.step + time >= 0:
                steps[time] = self._cache[index + time]
        views = self._task.views
        return {
            (view, time): steps[time].images[views.index(view)]
            for view, time in self._slots
            if time in steps
        }

    def _chunk(
        self, action_tokens: ActionTokens, index: int, step: TaskStep
    ) -> tuple[list[int], int]:
        """Ids of the next K actions, and how many count.

        After an episode's end its last action is repeated, with no weight in the loss.
        """
        actions = [step.action]
        codec = action_tokens.codec
        horizon = codec.codec.horizon
        for later in range(index + 1, min(index + horizon, len(self._cache))):
            following = self._cache[later]
            if following.step == 0:
                break
            actions.append(following.action)
        chunk = np.stack(actions + actions[-1:] * (horizon - len(actions)))
        tokens = action_tokens.to_ids(codec.encode(chunk).levels).tolist()
        return tokens, len(actions) * chunk.shape[1]


def mixture_examples(
    manifest: Manifest,
    caches: Sequence[StepSource],
    inputs: ModelInputs,
    codec: ActionCodec,
    vocabulary: ActionVocabulary,
) -> list[TaskExamples]:
    """The examples of each task of a mixture, with actions written by `codec`.

    Args:
      manifest: of the mixture; its statistics give the bounds.
      caches: of its tasks, in order, from `open_caches`.
      inputs: what makes the features.
      codec: how actions are written.
      vocabulary: the tokens of its levels.
    """
    vocabulary.check_tokenizer(inputs.tokenizer)
    examples = []
    for source_id, (task, cache) in enumerate(zip(manifest.tasks, caches, strict=True)):
        tokens = None
        if task.info.robot is not None:
            bound = codec.bind(task.info.robot.action_space, manifest.bounds(task.info))
            tokens = ActionTokens(bound, vocabulary)
        state = manifest.state_text(task.info, inputs.spec.state_fields, inputs.spec.state_bins)
        examples.append(TaskExamples(source_id, cache, inputs, tokens, state))
    return examples
