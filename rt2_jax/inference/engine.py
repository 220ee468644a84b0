"""A checkpoint as a policy: observations in, actions in native units out, in compiled batches."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np

from rt2_jax.actions.policy import Observation
from rt2_jax.actions.sampling import MOST_TOP_K, Sampling
from rt2_jax.actions.tokens import ActionTokens
from rt2_jax.data.model_inputs import ImageSlot
from rt2_jax.data.prompt_template import IMAGE_MARK, IMAGE_PLACE
from rt2_jax.data.task_info import TaskInfo
from rt2_jax.inference.answers import DecodedActions, Question, WrittenText, action_result
from rt2_jax.inference.decoder import AnswerDecoder, NotFiniteScoresError
from rt2_jax.inference.exported import ProgramStore
from rt2_jax.inference.history import FrameHistory
from rt2_jax.inference.metadata import describe_task
from rt2_jax.inference.observing import (
    observation_features,
    observation_name,
    state_outside,
    unused_inputs,
)
from rt2_jax.inference.placement import Placement
from rt2_jax.inference.programs import Compiled, DecodePrograms
from rt2_jax.inference.tasks import choose_robot_task
from rt2_jax.inference.text import Asked, answer_in_words
from rt2_jax.inference.weights import Weights, abstract_params, check_format, serving_weights
from rt2_jax.models.config_json import config_to_json
from rt2_jax.models.model import Params
from rt2_jax.training.adapters import restore_merged
from rt2_jax.training.checkpoints import find_checkpoint
from rt2_jax.training.description import RunDescription

__all__ = ["EnginePolicy", "NotFiniteScoresError", "PolicyEngine", "Question"]

Features = Mapping[str, np.ndarray]


class PolicyEngine:
    """Answers observations and questions with the weights and the transforms of a checkpoint.

    Answers are the likeliest ones, greedily, unless a `Sampling` is given.

    Args:
      description: the checkpoint's.
      weights: of its model: parameters as a checkpoint has them, or what `serving_weights` made.
      batch_sizes: of the compiled programs; requests are padded to the next one.
      checkpoint: its name, for the metadata.
      compiled: of an engine of the same run, `compiled`; what it holds is not compiled again. It is
        ignored where the model or the shapes of its inputs are others.
      most_samples: answers to one request that `warm_up` compiles for; 0 compiles for each number
        of them when it is first asked for.
      store: of programs that earlier processes have compiled; None to compile all of them.
      placement: of the weights on several devices; None for one.

    Attributes:
      weights: as they are served.
    """

    def __init__(
        self,
        description: RunDescription,
        weights: Params | Weights,
        batch_sizes: Sequence[int] = (1, 2, 4, 8),
        checkpoint: str = "",
        compiled: Compiled | None = None,
        most_samples: int = 0,
        store: ProgramStore | None = None,
        placement: Placement | None = None,
    ) -> None:
        self.description = description
        self.checkpoint = checkpoint
        self.most_samples = most_samples
        self._inputs = description.model_inputs
        self._vocab_size = description.vocab_size
        model = description.make_model()
        if not isinstance(weights, Weights):
            weights = serving_weights(model, weights, description.inputs.batch_shapes(1))
        self.weights = weights
        of = _decides_programs(description, weights.params)
        if compiled is None or compiled.of != of:
            compiled = Compiled(of)
        self._programs = DecodePrograms(
            model.written_out(),
            weights.params,
            batch_sizes,
            compiled,
            most_samples,
            store,
            placement,
        )
        self._decoder = AnswerDecoder(description, self._programs, checkpoint)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | pathlib.Path,
        batch_sizes: Sequence[int] = (1, 2, 4, 8),
        which: str = "params",
        *,
        weights: str = "stored",
        compiled: Compiled | None = None,
        most_samples: int = 0,
        store: ProgramStore | None = None,
        placement: Placement | None = None,
    ) -> PolicyEngine:
        """Reads a checkpoint, a run's latest one, or `pretrained:NAME`; nothing else is needed.

        Adapters are merged into their base, which then is needed too.

        Args:
          checkpoint: its place.
          batch_sizes: of the compiled programs.
          which: `params`, or `ema` for their average.
          weights: how they are kept: one of `rt2_jax.inference.weights.FORMATS`.
          compiled: as the engine takes it.
          most_samples: as the engine takes it.
          store: as the engine takes it.
          placement: of the weights, each part of which is read to its device; None: all on the
            first one.

        Raises:
          FileNotFoundError: it is no checkpoint, or not a whole one.
          TypeError, KeyError, ValueError: it is damaged, or of another version; another format; or
            its weights cannot be divided as the placement has it.
        """
        check_format(weights)
        path = find_checkpoint(checkpoint)
        description = RunDescription.from_checkpoint(path)
        abstract = (
            abstract_params(description)
            if placement is None
            else placement.abstract_params(description)
        )
        ready = serving_weights(
            description.make_model(),
            restore_merged(path, abstract, which),
            description.inputs.batch_shapes(1),
            weights,
            consume=True,
        )
        return cls(
            description, ready, batch_sizes, path.name, compiled, most_samples, store, placement
        )

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Of the compiled programs, rising."""
        return self._programs.batch_sizes

    @property
    def compiled(self) -> Compiled:
        """The programs without the weights; it lives longer than the engine."""
        return self._programs.compiled

    def robot_task(self, name: str | None = None, *, embodiment: str | None = None) -> TaskInfo:
        """The task whose prompt, views and actions are meant; see `choose_robot_task`.

        Raises:
          KeyError: no such task. ValueError: none at all, or a choice has to be made.
        """
        return choose_robot_task(self.description, self.checkpoint, name, embodiment)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """`describe()` of the only robot."""
        return self.describe(self.robot_task())

    def describe(self, task: TaskInfo) -> dict[str, Any]:
        """What a client must know of a robot task before it acts: plain JSON."""
        return {
            "checkpoint": self.checkpoint,
            "weights": self.weights.hash,
            "weights_format": self.weights.format,
            **describe_task(self.description, task),
            "batch_sizes": list(self.batch_sizes),
            "most_samples": self.most_samples,
            "most_top_k": MOST_TOP_K,
        }

    def action_tokens(self, task: TaskInfo) -> ActionTokens:
        """How a robot task's actions are written, with the bounds of the checkpoint."""
        return self._decoder.action_tokens(task)

    def warm_up(
        self,
        *,
        questions: bool | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> dict[int, float]:
        """Compiles and runs all programs, so that no request ever waits for one.

        Args:
          questions: whether also those that answer questions; None: where there is no robot.
          say: called with the batch size that is next, in words.

        Returns:
          Seconds for each batch size.

        Raises:
          NotFiniteScoresError: the weights give no finite numbers.
        """
        example = dict(self.description.example_input)
        robots = self.description.robot_tasks
        samplings: list[Sampling | None] = [None]
        if self.most_samples:
            samplings.append(Sampling(num_samples=self.most_samples))
        seconds = {}
        for number, size in enumerate(self.batch_sizes, 1):
            say(f"batches of {size} ({number} of {len(self.batch_sizes)})")
            start = time.perf_counter()
            for sampling in samplings:
                for task in robots:
                    self.decode([example] * size, task, sampling)
                if questions or (questions is None and not robots):
                    self.write([example] * size, sampling)
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
        return observation_features(
            self.description, task, images, instruction, state, where, instruction_embedding
        )

    def decode(
        self, examples: Sequence[Features], task: TaskInfo, sampling: Sampling | None = None
    ) -> DecodedActions:
        """Plans and action tokens of robot examples, with the log-probability of each token.

        A plan is free text up to `PLAN_END`, its own end, or the last place that it may have.
        Behind it each place holds one of the ids that its field has, so that every row is an
        action, also a drawn one.

        Args:
          examples: their features.
          task: whose actions.
          sampling: how answers are drawn; None for the likeliest one.

        Raises:
          NotFiniteScoresError: the weights give no finite numbers.
        """
        return self._decoder.actions(examples, task, sampling)

    def decode_actions(
        self, examples: Sequence[Features], task: TaskInfo
    ) -> tuple[list[str], np.ndarray, np.ndarray]:
        """The likeliest plans and action tokens of robot examples, see `decode`.

        Returns:
          B plans ("" where the model writes none), action tokens int32 [B, K * D], and float32 [B],
          the log-probabilities of both.

        Raises:
          NotFiniteScoresError: the weights give no finite numbers.
        """
        found = self.decode(examples, task)
        return [plans[0] for plans in found.plans], found.tokens[:, 0], found.scores[:, 0]

    def write(
        self,
        examples: Sequence[Features],
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
    ) -> list[list[WrittenText]]:
        """Answers in words to web examples, without mask: one or `sampling.num_samples` to each.

        Args:
          examples: their features.
          sampling: how answers are drawn; None for the likeliest one.
          max_tokens: what is longer is cut; None for as many as the model was trained on.

        Raises:
          ValueError: the model writes actions only or not so many tokens, or the weights give no
            finite numbers.
        """
        return self._decoder.texts(examples, sampling, max_tokens)

    def decode_text(self, examples: Sequence[Features]) -> list[str]:
        """The likeliest answers to web examples, see `write`."""
        return [answers[0].text for answers in self.write(examples)]

    def score(self, examples: Sequence[Features]) -> np.ndarray:
        """Log-probabilities float32 [B] of the answers that examples hold, each token after the
        recorded ones before it.

        Args:
          examples: whole ones, as `TaskExamples` gives them.

        Raises:
          ValueError: the weights give no finite numbers.
        """
        return self._decoder.score(examples)

    def act(
        self,
        observations: Sequence[Observation],
        task: TaskInfo | None = None,
        history: FrameHistory | None = None,
        sampling: Sampling | None = None,
    ) -> list[dict[str, Any]]:
        """The next actions for each observation.

        Args:
          observations: of any sessions; all are answered in one batch where one is large enough.
          task: by default the only robot's.
          history: earlier frames; without it, slots of earlier times stay empty.
          sampling: how answers are drawn; None for the likeliest one.

        Returns:
          For each: `actions` float32 [K, D] in native units, `tokens` int32 [K * D], `levels`
          int32 [K, D], `plan` (in words, "" for none), `score` (log-probability of plan and action
          among what is allowed), `token_scores` float32 [K * D] (that of each of the tokens),
          `confidence` (the least probability of one of them among all tokens of the model, so it
          is low too where the model would rather have written something else than an action),
          `unused`, the names of inputs that the model does not read, and `state_outside`, those of
          the state's numbers that are outside the range that training saw.
          With `sampling` these are of the first drawn answer, and `samples` has all n: `actions`
          [n, K, D], `tokens` and `token_scores` [n, K * D], `scores` [n], `plans`.

        Raises:
          TypeError, KeyError, ValueError: an observation that the model cannot read, or weights
            that give no finite numbers. No frame is remembered of a batch that is refused.
        """
        task = task or self.robot_task()
        names = [observation_name(observation) for observation in observations]
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
        outside = [
            state_outside(self.description, task, observation, where)
            for observation, where in zip(observations, names, strict=True)
        ]
        decoded = self.decode(examples, task, sampling)
        codec, tokenizer = self.action_tokens(task), self._inputs.tokenizer
        results = []
        for row, (observation, where) in enumerate(zip(observations, names, strict=True)):
            result = action_result(codec, tokenizer, decoded, row, sampling is not None, where)
            result["unused"] = unused_inputs(self.description, task, observation)
            result["state_outside"] = outside[row]
            results.append(result)
        history.remember(observations)
        return results

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """The likeliest answers to web prompts; no mask, so any text can come.

        Raises:
          ValueError: a damaged picture, or a prompt that is too long.
        """
        return [answers[0].text for answers in self.answers(questions)]

    def answers(
        self,
        questions: Sequence[Question],
        sampling: Sampling | None = None,
        max_tokens: int | None = None,
    ) -> list[list[WrittenText]]:
        """Answers to web prompts with their log-probabilities; see `write`.

        Raises:
          ValueError: a damaged picture, a prompt that is too long, or as `write`.
        """
        slot = self._inputs.spec.image_slots[0]
        examples = [
            self._inputs.observe(
                {} if question.picture is None else {slot: question.picture},
                question.prompt.replace(IMAGE_MARK, IMAGE_PLACE),
                robot=False,
                where=f"question {number}",
            )
            for number, question in enumerate(questions)
        ]
        return self.write(examples, sampling, max_tokens)


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

    def infer_batch(
        self, observations: Sequence[Observation], sampling: Sampling | None = None
    ) -> list[dict[str, Any]]:
        """Answers several sessions at once, with the tokens that each would get alone."""
        return self.engine.act(observations, self.task, self._history, sampling)

    def answer(self, questions: Sequence[Asked]) -> list[list[str]]:
        """As `answer_in_words`."""
        return answer_in_words(self.engine, questions)


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
