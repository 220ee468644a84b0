"""A checkpoint as a policy: observations in, actions in native units out, in compiled batches."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from rt2_jax.actions.policy import Observation, check_policy_output
from rt2_jax.actions.tokens import ActionTokens
from rt2_jax.data.model_inputs import ImageSlot
from rt2_jax.data.prompt_template import IMAGE_MARK, IMAGE_PLACE
from rt2_jax.data.state_text import fill_prompt
from rt2_jax.data.task_info import TaskInfo
from rt2_jax.inference.exported import ProgramStore
from rt2_jax.inference.history import FrameHistory
from rt2_jax.inference.metadata import describe_task
from rt2_jax.inference.placement import Placement
from rt2_jax.inference.programs import Compiled, DecodePrograms
from rt2_jax.inference.weights import abstract_params, weights_hash
from rt2_jax.models.config_json import config_to_json
from rt2_jax.models.model import Params
from rt2_jax.training.adapters import restore_merged
from rt2_jax.training.checkpoints import find_checkpoint
from rt2_jax.training.description import RunDescription

Features = Mapping[str, np.ndarray]

_ASPECT_TOLERANCE = 0.02  # of width / height


class NotFiniteScoresError(ValueError):
    """The weights give no finite numbers: training has diverged, or they are damaged."""


@dataclass(frozen=True)
class Question:
    """A prompt as the model reads it, with a picture (uint8 [H, W, 3], or encoded) or none."""

    prompt: str
    picture: np.ndarray | bytes | None = None


class PolicyEngine:
    """Answers observations and questions with the weights and the transforms of a checkpoint.

    Args:
      description: the checkpoint's.
      params: of its model.
      batch_sizes: of the compiled programs; requests are padded to the next one.
      checkpoint: its name, for the metadata.
      compiled: of an engine of the same run, `compiled`; what it holds is not compiled again. It is
        ignored where the model or the shapes of its inputs are others.
      store: of programs that earlier processes have compiled; None to compile all of them.
      placement: of `params` on several devices; None for one.
    """

    def __init__(
        self,
        description: RunDescription,
        params: Params,
        batch_sizes: Sequence[int] = (1, 2, 4, 8),
        checkpoint: str = "",
        compiled: Compiled | None = None,
        store: ProgramStore | None = None,
        placement: Placement | None = None,
    ) -> None:
        self.description = description
        self.checkpoint = checkpoint
        self._inputs = description.model_inputs
        self._vocab_size = description.vocab_size
        model = description.make_model()
        self._params = params
        of = _decides_programs(description, params)
        if compiled is None or compiled.of != of:
            compiled = Compiled(of)
        self._programs = DecodePrograms(model, params, batch_sizes, compiled, store, placement)
        self._tokens: dict[TaskInfo, tuple[ActionTokens, np.ndarray]] = {}

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | pathlib.Path,
        batch_sizes: Sequence[int] = (1, 2, 4, 8),
        which: str = "params",
        *,
        compiled: Compiled | None = None,
        store: ProgramStore | None = None,
        placement: Placement | None = None,
    ) -> PolicyEngine:
        """Reads a checkpoint, a run's latest one, or `pretrained:NAME`; nothing else is needed.

        Adapters are merged into their base, which then is needed too.

        Args:
          checkpoint: its place.
          batch_sizes: of the compiled programs.
          which: `params`, or `ema` for their average.
          compiled: as the engine takes it.
          store: as the engine takes it.
          placement: of the weights, each part of which is read to its device; None: all on the
            first one.

        Raises:
          FileNotFoundError: it is no checkpoint, or not a whole one.
          TypeError, KeyError, ValueError: it is damaged, or of another version; or its weights
            cannot be divided as the placement has it.
        """
        path = find_checkpoint(checkpoint)
        description = RunDescription.from_checkpoint(path)
        abstract = (
            abstract_params(description)
            if placement is None
            else placement.abstract_params(description)
        )
        params = restore_merged(path, abstract, which)
        return cls(description, params, batch_sizes, path.name, compiled, store, placement)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Of the compiled programs, rising."""
        return self._programs.batch_sizes

    @property
    def compiled(self) -> Compiled:
        """The programs without the weights; it lives longer than the engine."""
        return self._programs.compiled

    def robot_task(self, name: str | None = None, *, embodiment: str | None = None) -> TaskInfo:
        """The task whose prompt, views and actions are meant.

        Args:
          name: of a robot task of the checkpoint's mixture. None where only one is possible, or
            where all that are left agree in prompt, views and actions.
          embodiment: leaves the tasks of this robot.

        Raises:
          KeyError: no such task. ValueError: none at all, or a choice has to be made.
        """
        tasks = self.description.robot_tasks
        mixture = self.description.manifest.mixture
        if not tasks:
            raise ValueError(
                f"{self.checkpoint or 'checkpoint'}: trained on {mixture!r}, which has no robot: "
                "it answers questions, but it cannot act"
            )
        left = [
            task
            for task in tasks
            if name in (None, task.name)
            and task.robot is not None
            and embodiment in (None, task.robot.embodiment)
        ]
        if not left:
            raise KeyError(
                f"no robot task {name or ''!r} of embodiment {embodiment or 'any'!r}; the "
                f"checkpoint was trained on {_names(tasks)}"
            )
        first = left[0]
        if any(_acts_as(task) != _acts_as(first) for task in left):
            raise ValueError(
                "the checkpoint's robot tasks differ in prompt, views or actions; choose one of "
                f"{_names(left)}"
            )
        return first

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """`describe()` of the only robot."""
        return self.describe(self.robot_task())

    def describe(self, task: TaskInfo) -> dict[str, Any]:
        """What a client must know of a robot task before it acts: plain JSON."""
        return {
            "checkpoint": self.checkpoint,
            "weights": self._weights_hash,
            **describe_task(self.description, task),
            "batch_sizes": list(self.batch_sizes),
        }

    @cached_property
    def _weights_hash(self) -> str:
        return weights_hash(self._params)

    def action_tokens(self, task: TaskInfo) -> ActionTokens:
        """How a robot task's actions are written, with the bounds of the checkpoint."""
        return self._bound(task)[0]

    def warm_up(self, *, questions: bool | None = None) -> dict[int, float]:
        """Compiles and runs all programs, so that no request ever waits for one.

        Args:
          questions: whether also those that answer questions; None: where there is no robot.

        Returns:
          Seconds for each batch size.

        Raises:
          NotFiniteScoresError: the weights give no finite numbers.
        """
        example = dict(self.description.example_input)
        robots = self.description.robot_tasks
        seconds = {}
        for size in self.batch_sizes:
            start = time.perf_counter()
            for task in robots:
                self.decode_actions([example] * size, task)
            if questions or (questions is None and not robots):
                self.decode_text([example] * size)
            seconds[size] = time.perf_counter() - start
        return seconds

    def observe(
        self,
        task: TaskInfo,
        images: Mapping[ImageSlot, np.ndarray],
        instruction: str,
        state: np.ndarray | None = None,
        where: str = "observation",
        instruction_embedding: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """The features of a robot's observation: training's transforms without augmentation.

        A model that reads vectors of instructions takes the one that is given, else that which was
        stored with the same instruction in training.

        Raises:
          KeyError: a view that the task was trained with is missing, or the state that is read, or
            the vector of an instruction.
          ValueError: a picture of another aspect ratio, an instruction that is too long, or a state
            of another length.
        """
        spec = self._inputs.spec
        slots = [slot for slot in spec.image_slots if slot[0] in task.views]
        missing = [slot for slot in slots if slot[1] == 0 and slot not in images]
        if missing:
            raise KeyError(
                f"{where}: no picture of view {missing[0][0]!r}; expected "
                f"{[view for view, time in slots if time == 0]}"
            )
        for (view, _), image in images.items():
            _check_aspect(task, view, image.shape, where)
        table = self.description.instructions
        if table is not None and instruction_embedding is None:
            instruction_embedding = table.find(instruction, where)
        return self._inputs.observe(
            {slot: image for slot, image in images.items() if slot in slots},
            fill_prompt(task, instruction, self.description.state_text(task), state, where),
            robot=True,
            where=where,
            instruction_embedding=instruction_embedding,
        )

    def decode_actions(
        self, examples: Sequence[Features], task: TaskInfo
    ) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Plans and action tokens of robot examples.

        A plan is free text. Behind it each place holds one of the ids that its field has, so that
        every row is an action.

        Returns:
          B plans ("" where the model writes none), action tokens int32 [B, K * D], and float32 [B],
          the log-probabilities of both.

        Raises:
          NotFiniteScoresError: the weights give no finite numbers.
        """
        mask, plan = self._bound(task)[1], self._inputs.spec.plan_length
        tokens, scores = self._finite(*self._programs.decode(examples, len(mask), mask, plan))
        return [self._text(row) for row in tokens[:, :plan]], tokens[:, plan:], scores

    def decode_text(self, examples: Sequence[Features]) -> list[str]:
        """The likeliest answers to web examples, without mask.

        Raises:
          ValueError: the model writes actions only, or the weights give no finite numbers.
        """
        if not self.description.model.writes_text:
            raise ValueError(
                f"{self.checkpoint or 'checkpoint'}: its model writes actions only; it cannot "
                "answer in words"
            )
        length = self._inputs.spec.decoder_length
        tokens, _ = self._finite(*self._programs.decode(examples, length, None))
        return [self._text(row) for row in tokens]

    def score(self, examples: Sequence[Features]) -> np.ndarray:
        """Log-probabilities float32 [B] of the answers that examples hold, each token after the
        recorded ones before it.

        Args:
          examples: whole ones, as `TaskExamples` gives them.

        Raises:
          ValueError: the weights give no finite numbers.
        """
        scores = self._programs.score(examples)
        return self._finite(scores, scores)[1]

    def act(
        self,
        observations: Sequence[Observation],
        task: TaskInfo | None = None,
        history: FrameHistory | None = None,
    ) -> list[dict[str, Any]]:
        """The next actions for each observation.

        Args:
          observations: of any sessions; all are answered in one batch where one is large enough.
          task: by default the only robot's.
          history: earlier frames; without it, slots of earlier times stay empty.

        Returns:
          For each: `actions` float32 [K, D] in native units, `tokens` int32 [K * D], `levels`
          int32 [K, D], `plan` (in words, "" for none), `score` (log-probability of the tokens),
          `unused`, the names of inputs that the model does not read, and `state_outside`, those of
          the state's numbers that are outside the range that training saw.

        Raises:
          TypeError, KeyError, ValueError: an observation that the model cannot read, or weights
            that give no finite numbers. No frame is remembered of a batch that is refused.
        """
        task = task or self.robot_task()
        names = [_name(observation) for observation in observations]
        for observation in observations:
            observation.check()
        if history is None:
            history = FrameHistory(self._inputs.spec.image_slots)
        else:
            history.check_sessions(observations)
        examples = [
            self.observe(
                task,
                history.images(observation),
                observation.instruction,
                observation.state,
                where,
                observation.instruction_embedding,
            )
            for observation, where in zip(observations, names, strict=True)
        ]
        writer = self.description.state_text(task)
        outside = [
            ()
            if writer is None or observation.state is None
            else writer.outside(observation.state, where)
            for observation, where in zip(observations, names, strict=True)
        ]
        plans, tokens, scores = self.decode_actions(examples, task)
        codec = self.action_tokens(task)
        results = []
        for number, (observation, where, plan, row, score) in enumerate(
            zip(observations, names, plans, tokens, scores, strict=True)
        ):
            levels = codec.from_ids(row.tolist(), self._inputs.tokenizer.id_to_piece)
            result = {
                "actions": codec.codec.decode(levels),
                "tokens": row,
                "levels": levels,
                "plan": plan,
                "score": float(score),
                "unused": self._unused(observation, task),
                "state_outside": outside[number],
            }
            check_policy_output(codec.codec.space, result, where)
            results.append(result)
        history.remember(observations)
        return results

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """Greedy answers to web prompts; no mask, so any text can come.

        Raises:
          ValueError: a damaged picture, or a prompt that is too long.
        """
        slot = self._inputs.spec.image_slots[0]
        return self.decode_text(
            [
                self._inputs.observe(
                    {} if question.picture is None else {slot: question.picture},
                    question.prompt.replace(IMAGE_MARK, IMAGE_PLACE),
                    robot=False,
                    where=f"question {number}",
                )
                for number, question in enumerate(questions)
            ]
        )

    def _bound(self, task: TaskInfo) -> tuple[ActionTokens, np.ndarray]:
        if task not in self._tokens:
            tokens = self.description.action_tokens(task)
            mask = tokens.token_mask(self._vocab_size)
            plan = np.ones((self._inputs.spec.plan_length, self._vocab_size), bool)
            self._tokens[task] = tokens, np.concatenate([plan, mask])
        return self._tokens[task]

    def _text(self, tokens: np.ndarray) -> str:
        """What tokens say; the model may have more ids than the vocabulary has pieces."""
        tokenizer = self._inputs.tokenizer
        return tokenizer.decode(
            i for i in tokens.tolist() if 0 < i < tokenizer.vocab_size and i != tokenizer.eos_id
        )

    def _finite(self, tokens: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not np.all(np.isfinite(scores)):
            raise NotFiniteScoresError(
                f"{self.checkpoint or 'checkpoint'}: the model's scores are not finite, so nothing "
                "was decoded; its training has diverged, or the weights are damaged"
            )
        return tokens, scores

    def _unused(self, observation: Observation, task: TaskInfo) -> tuple[str, ...]:
        read = {view for view, _ in self._inputs.spec.image_slots if view in task.views}
        names = [f"images/{view}" for view in observation.images if view not in read]
        unread = observation.state is not None and not self._inputs.spec.state_fields
        vector = observation.instruction_embedding is not None
        if vector and self.description.instructions is None:
            names.append("instruction_embedding")
        return (*names, *(("state",) if unread else ()))


class EnginePolicy:
    """An engine as a `Policy` that remembers each session's earlier frames.

    Args:
      engine: it may be shared by several policies.
      task: by default the only robot's.
    """

    def __init__(self, engine: PolicyEngine, task: TaskInfo | None = None) -> None:
        self.engine = engine
        self.task = task or engine.robot_task()
        self.metadata: Mapping[str, Any] = engine.describe(self.task)
        self._history = FrameHistory(engine.description.inputs.image_slots)

    def reset(self, session: str | None = None) -> None:
        """Forgets the session's frames."""
        self._history.forget(session)

    def infer(self, observation: Observation) -> dict[str, Any]:
        """As `PolicyEngine.act` answers."""
        return self.infer_batch([observation])[0]

    def infer_batch(self, observations: Sequence[Observation]) -> list[dict[str, Any]]:
        """Answers several sessions at once, with the tokens that each would get alone."""
        return self.engine.act(observations, self.task, self._history)


def _decides_programs(description: RunDescription, params: Params) -> dict[str, Any]:
    """All that two checkpoints must have in common to share compiled programs: plain JSON."""
    data = description.to_json()
    # The mask and the bounds are arguments; prompts and pictures are made before.
    return {
        "model": config_to_json(description.model),
        "inputs": data["inputs"],
        "vocabulary": data["vocabulary"]["hash"],
        "action_vocabulary": data["action_vocabulary"],
        "params": {
            jax.tree_util.keystr(path): [
                *(list(leaf.shape), str(leaf.dtype), str(getattr(leaf, "sharding", None)))
            ]
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        },
    }


def _acts_as(task: TaskInfo) -> tuple[Any, ...]:
    return task.prompt, task.views, task.image_size, task.robot


def _names(tasks: Sequence[TaskInfo]) -> str:
    return ", ".join(repr(task.name) for task in tasks)


def _name(observation: Observation) -> str:
    words = ["observation"]
    if observation.session is not None:
        words.append(f"of session {observation.session!r}")
    if observation.step is not None:
        words.append(f"step {observation.step}")
    return ", ".join([" ".join(words[:2]), *words[2:]])


def _check_aspect(task: TaskInfo, view: str, shape: tuple[int, ...], where: str) -> None:
    if task.image_size is None or view not in task.views:
        return
    height, width = task.image_size
    if abs(shape[1] / shape[0] * height / width - 1) > _ASPECT_TOLERANCE:
        raise ValueError(
            f"{where}: the picture of view {view!r} has {shape[0]} x {shape[1]} pixels (height x "
            f"width), but training saw {height} x {width}: crop it to that shape, since stretching "
            "it would move everything in it"
        )
