"""From features to actions and texts: which programs are asked, with which masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rt2_jax.actions.policy import PolicyFault
from rt2_jax.actions.sampling import Sampling
from rt2_jax.actions.tokens import ActionTokens
from rt2_jax.data.task_info import TaskInfo
from rt2_jax.inference.answers import DecodedActions, WrittenText, text_of
from rt2_jax.inference.programs import DecodePrograms
from rt2_jax.training.description import RunDescription

PLAN_END = "Action:"
"""Ends a plan (RT-2, section 4.4): what follows it is the action."""

Features = Mapping[str, np.ndarray]


class NotFiniteScoresError(PolicyFault):
    """The weights give no finite numbers: training has diverged, or they are damaged."""


class AnswerDecoder:
    """Lets programs write what a prompt is to be answered with.

    Args:
      description: of the checkpoint.
      programs: with its parameters.
      checkpoint: what errors call it.
    """

    def __init__(
        self, description: RunDescription, programs: DecodePrograms, checkpoint: str
    ) -> None:
        self._description = description
        self._programs = programs
        self._checkpoint = checkpoint or "checkpoint"
        self._spec, self._tokenizer = description.inputs, description.tokenizer
        self._bound: dict[TaskInfo, tuple[ActionTokens, np.ndarray]] = {}

    def action_tokens(self, task: TaskInfo) -> ActionTokens:
        """How a robot task's actions are written."""
        return self._action_places(task)[0]

    def actions(
        self, examples: Sequence[Features], task: TaskInfo, sampling: Sampling | None
    ) -> DecodedActions:
        """See `PolicyEngine.decode`."""
        mask, plan = self._action_places(task)[1], self._spec.plan_length
        stop = self._tokenizer.encode(PLAN_END) if plan else ()
        found = self._programs.decode(examples, len(mask), mask, plan, stop, sampling)
        self._check_finite(found.log_probs)
        return DecodedActions(
            [[self._text(words) for words in row] for row in found.tokens[..., :plan]],
            found.tokens[..., plan:],
            found.log_probs[..., plan:],
            found.free_log_probs[..., plan:],
            found.log_probs.sum(axis=-1),
        )

    def texts(
        self, examples: Sequence[Features], sampling: Sampling | None, max_tokens: int | None
    ) -> list[list[WrittenText]]:
        """See `PolicyEngine.write`."""
        length = self._spec.decoder_length
        if not self._description.model.writes_text:
            raise ValueError(
                f"{self._checkpoint}: its model writes actions only; it cannot answer in words"
            )
        if max_tokens is not None and not 1 <= max_tokens <= length:
            raise ValueError(
                f"max_tokens: found {max_tokens}, expected 1 to {length}, the longest answers that "
                "the model was trained on"
            )
        found = self._programs.decode(examples, length, None, sampling=sampling)
        self._check_finite(found.log_probs)
        return [
            [
                WrittenText.of(self._tokenizer, tokens[:max_tokens], scores[:max_tokens])
                for tokens, scores in zip(*each, strict=True)
            ]
            for each in zip(found.tokens, found.log_probs, strict=True)
        ]

    def score(self, examples: Sequence[Features]) -> np.ndarray:
        """See `PolicyEngine.score`."""
        scores = self._programs.score(examples)
        self._check_finite(scores)
        return scores

    def _action_places(self, task: TaskInfo) -> tuple[ActionTokens, np.ndarray]:
        """How actions are written, and which ids may stand at each place of plan and action."""
        if task not in self._bound:
            tokens, width = self._description.action_tokens(task), self._description.vocab_size
            plan = np.ones((self._spec.plan_length, width), bool)
            self._bound[task] = tokens, np.concatenate([plan, tokens.token_mask(width)])
        return self._bound[task]

    def _text(self, tokens: np.ndarray) -> str:
        return text_of(self._tokenizer, tokens)

    def _check_finite(self, scores: np.ndarray) -> None:
        if not np.all(np.isfinite(scores)):
            raise NotFiniteScoresError(
                f"{self._checkpoint}: the model's scores are not finite, so nothing was decoded; "
                "its training has diverged, or the weights are damaged"
            )
