"""Compiled decoding: one program for each batch size and length."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from rt2_jax.actions.sampling import Sampling
from rt2_jax.inference.exported import ProgramStore
from rt2_jax.inference.placement import Placement
from rt2_jax.models.decoding import Decoded, Draw
from rt2_jax.models.model import Params, TransformerModel


@dataclass
class Compiled:
    """Programs without parameters: those of another checkpoint of the run can be put into them.

    Attributes:
      of: what decides the programs besides batch size and length, as plain JSON; programs are only
        used for what is equal to it.
      programs: (batch size, length, whether there is a mask, tokens that end a plan, answers to
        each row, 0 for the likeliest one) -> the compiled program.
    """

    of: Any
    programs: dict[tuple[int, int, bool, int, int], Any] = field(default_factory=dict)


class DecodePrograms:
    """Decoding of any number of examples with programs of a few batch sizes.

    A program reads once and writes all tokens in one loop on the device. Examples are padded to
    the next batch size, or cut into several batches.

    Args:
      model: whose parameters they are; best `TransformerModel.written_out`.
      params: on the device.
      batch_sizes: of the programs.
      compiled: where they are kept; those that are in it already are used.
      most_samples: programs that draw answers draw so many, and what nobody asked for is left out;
        0 compiles one for each number that is asked for.
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
        most_samples: int = 0,
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
        self._most_samples = most_samples

    def decode(
        self,
        examples: Sequence[Mapping[str, np.ndarray]],
        length: int,
        mask: np.ndarray | None,
        restart: int = 0,
        stop: Sequence[int] = (),
        sampling: Sampling | None = None,
    ) -> Decoded:
        """An allowed token at each place, given those before it.

        Args:
          examples: features of `ModelInputs.observe`; others are not read.
          length: tokens to write.
          mask: bool [length, vocab], which tokens may stand at each place; None for all.
          restart: where rows that have ended are written on, see `rt2_jax.models.decode`.
          stop: tokens that end a row before `restart`; () for none.
          sampling: how answers are drawn; None takes the likeliest tokens.

        Returns:
          Arrays [B, n, length]: `sampling.num_samples` answers to each example, or one.
        """
        count = 1 if sampling is None else sampling.num_samples
        drawn = 0 if sampling is None else max(count, self._most_samples)
        kinds = (np.int32, np.float32, np.float32)
        parts = [tuple(np.zeros((0, count, length), kind) for kind in kinds)]
        for rows, batch in self._batches(examples, self._features):
            answer = self._program(batch, length, mask, restart, stop, sampling, drawn)
            shape = (-1, max(drawn, 1), length)
            parts.append(tuple(np.asarray(x).reshape(shape)[:rows, :count] for x in answer))
        return Decoded(*(np.concatenate(each) for each in zip(*parts, strict=True)))

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
        restart: int,
        stop: Sequence[int],
        sampling: Sampling | None,
        drawn: int,
    ) -> Decoded:
        draw = None
        if sampling is not None:
            draw = Draw(
                np.uint32(sampling.seed),
                np.float32(sampling.temperature),
                np.int32(sampling.top_k),
                drawn,
            )
        ends = np.array(stop, np.int32) if len(stop) else None
        key = (len(batch["images"]), length, mask is not None, len(stop), drawn)
        arguments = (batch, mask, np.int32(restart), ends, draw)
        programs = self.compiled.programs
        if key not in programs:
            # Compiled for these shapes only: a request can never set off a compilation that the
            # warm-up did not see.
            programs[key] = self._compile(key, length, (self._params, *arguments))
        return programs[key](self._params, *arguments)

    def _compile(self, key: tuple[Any, ...], length: int, arguments: Any) -> Callable[..., Decoded]:
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
