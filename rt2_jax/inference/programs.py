"""Compiled decoding: one program for each batch size and length."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from rt2_jax.inference.exported import ProgramStore
from rt2_jax.inference.placement import Placement
from rt2_jax.models.model import Params, TransformerModel


@dataclass
class Compiled:
    """Programs without parameters: those of another checkpoint of the run can be put into them.

    Attributes:
      of: what decides the programs besides batch size and length, as plain JSON; programs are only
        used for what is equal to it.
      programs: (batch size, length, whether there is a mask) -> the compiled program.
    """

    of: Any
    programs: dict[tuple[int, int, bool], Any] = field(default_factory=dict)


class DecodePrograms:
    """Greedy decoding of any number of examples with programs of a few batch sizes.

    A program reads once and writes all tokens in one loop on the device. Examples are padded to
    the next batch size, or cut into several batches.

    Args:
      model: whose parameters they are.
      params: on the device.
      batch_sizes: of the programs.
      compiled: where they are kept; those that are in it already are used.
      store: of the programs of earlier starts; None to compile all of them.
      placement: of the parameters on several devices; None for one.

    Attributes:
      compiled: as given.

    Raises:
      ValueError: no batch sizes, or one that is no positive integer.
    """

    def __init__(
        self,
        model: TransformerModel,
        params: Params,
        batch_sizes: Sequence[int],
        compiled: Compiled | None = None,
        store: ProgramStore | None = None,
        placement: Placement | None = None,
    ) -> None:
        sizes = tuple(sorted(set(batch_sizes)))
        if not sizes or any(type(size) is not int or size < 1 for size in sizes):
            raise ValueError(
                f"batch_sizes: found {list(batch_sizes)}, expected one or more integers above 0"
            )
        self.batch_sizes = sizes
        self._params = params
        self._features = tuple(model.OBSERVED)
        self.compiled = compiled or Compiled(None)
        self._model = model
        self._store = store
        self._placement = placement
        self._whole = tuple(model.features)
        self._score = jax.jit(model.score_batch)

    def decode(
        self,
        examples: Sequence[Mapping[str, np.ndarray]],
        length: int,
        mask: np.ndarray | None,
        restart: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest allowed token at each place, given those before it.

        Args:
          examples: features of `ModelInputs.observe`; others are not read.
          length: tokens to write.
          mask: bool [length, vocab], which tokens may stand at each place; None for all.
          restart: where rows that have ended are written on, see `greedy_decode`.

        Returns:
          int32 [B, length] (0 after the end), and float32 [B], their log-probabilities.
        """
        tokens, scores = [np.zeros((0, length), np.int32)], [np.zeros(0, np.float32)]
        for count, batch in self._batches(examples, self._features):
            answer = self._program(batch, length, mask, np.int32(restart))
            tokens.append(np.asarray(answer[0])[:count])
            scores.append(np.asarray(answer[1])[:count])
        return np.concatenate(tokens), np.concatenate(scores)

    def score(self, examples: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
        """Log-probabilities of the weighted targets that whole examples hold, float32 [B]."""
        scores = [np.zeros(0, np.float32)]
        for count, batch in self._batches(examples, self._whole):
            scores.append(np.asarray(self._score(self._params, batch))[:count])
        return np.concatenate(scores)

    def _batches(
        self, examples: Sequence[Mapping[str, np.ndarray]], features: Sequence[str]
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Batches of the programs' sizes, and how many rows of each are examples."""
        largest = self.batch_sizes[-1]
        for first in range(0, len(examples), largest):
            part = examples[first : first + largest]
            size = next(size for size in self.batch_sizes if size >= len(part))
            rows = [*part, *[part[-1]] * (size - len(part))]
            yield len(part), {name: np.stack([row[name] for row in rows]) for name in features}

    def _program(
        self,
        batch: Mapping[str, np.ndarray],
        length: int,
        mask: np.ndarray | None,
        restart: np.int32,
    ) -> tuple[jax.Array, jax.Array]:
        key = (len(batch["images"]), length, mask is not None)
        programs = self.compiled.programs
        if key not in programs:
            # Compiled for these shapes only: a request can never set off a compilation that the
            # warm-up did not see.
            programs[key] = self._compile(key, length, (self._params, batch, mask, restart))
        return programs[key](self._params, batch, mask, restart)

    def _compile(self, key: tuple[Any, ...], length: int, arguments: Any) -> Callable[..., Any]:
        placement = self._placement

        def generate(params: Any, batch: Any, *others: Any) -> tuple[jax.Array, ...]:
            answer = tuple(self._model.generate(params, batch, length, *others))
            if placement is None:
                return answer
            return jax.lax.with_sharding_constraint(answer, placement.whole)

        if placement is not None:
            arguments = placement.abstract(arguments)
        with contextlib.nullcontext() if placement is None else placement.active():
            if self._store is None:
                return jax.jit(generate).lower(*arguments).compile()
            identity = {"of": self.compiled.of, "decode": list(key)}
            return self._store.program(generate, arguments, identity)
