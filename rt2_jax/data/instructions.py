"""Vectors that a data set stores with its instructions, one for each text."""

from __future__ import annotations

import base64
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from rt2_jax.actions.identity import check_keys

_SAME_WITHIN = 1e-3
"""Of the largest number: an encoder does not give the very same bits on every machine."""


@dataclass(frozen=True)
class InstructionEncoder:
    """What made the vectors that a data set stores with its instructions.

    Attributes:
      name: of the encoder, for people: "universal-sentence-encoder".
      dim: numbers of a vector.
    """

    name: str
    dim: int

    def __post_init__(self) -> None:
        if not self.name or self.dim < 1:
            raise ValueError(f"{self}: expected a name, and vectors of 1 number or more")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"name": self.name, "dim": self.dim}

    @classmethod
    def from_json(cls, data: Any) -> InstructionEncoder:
        """Reads what `to_json` wrote; unknown and missing keys are refused by name."""
        check_keys("instruction encoder", data, ("name", "dim"))
        return cls(data["name"], data["dim"])


@dataclass(frozen=True, eq=False)
class InstructionTable:
    """The vector of each instruction that a data set has.

    Training and serving both look up an instruction by its text, so a policy is told nothing at a
    robot that it was not told in training.

    Attributes:
      encoder: what made the vectors.
      embeddings: text -> float32 [dim].
    """

    encoder: InstructionEncoder
    embeddings: Mapping[str, np.ndarray]

    def find(self, text: str, where: str) -> np.ndarray:
        """The vector of an instruction, float32 [dim].

        Raises:
          KeyError: there is none; the message has the nearest instructions.
        """
        found = self.embeddings.get(text)
        if found is None:
            near = difflib.get_close_matches(text, self.embeddings, n=3, cutoff=0.0)
            raise KeyError(
                f"{where}: no vector is stored for the instruction {text!r}; there are "
                f"{len(self.embeddings)}, the nearest are {near}: use one of them, or send the "
                f"{self.encoder.dim} numbers that {self.encoder.name} gives for it as "
                "instruction_embedding"
            )
        return found

    def pack(self) -> bytes:
        """A msgpack map, sorted by text; arrays are little-endian float32."""
        packed: bytes = msgpack.packb(
            {
                text: self.embeddings[text].astype("<f4").tobytes()
                for text in sorted(self.embeddings)
            }
        )
        return packed

    @classmethod
    def unpack(cls, encoder: InstructionEncoder, data: bytes) -> InstructionTable:
        """Reads what `pack` wrote."""
        found = msgpack.unpackb(data)
        return cls(encoder, {text: np.frombuffer(each, "<f4") for text, each in found.items()})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the vectors in base64."""
        packed = base64.b64encode(self.pack()).decode()
        return {"encoder": self.encoder.to_json(), "embeddings": packed}

    @classmethod
    def from_json(cls, data: Any) -> InstructionTable:
        """Reads what `to_json` wrote; unknown and missing keys are refused by name."""
        check_keys("instructions", data, ("encoder", "embeddings"))
        encoder = InstructionEncoder.from_json(data["encoder"])
        return cls.unpack(encoder, base64.b64decode(data["embeddings"]))


def add_embedding(embeddings: dict[str, np.ndarray], text: str, vector: np.ndarray) -> None:
    """Adds a text's vector to a table that is being made.

    Raises:
      ValueError: the text has another vector already.
    """
    before = embeddings.setdefault(text, vector)
    if before is vector or np.array_equal(before, vector):
        return
    apart = float(np.max(np.abs(before - vector)))
    if apart > _SAME_WITHIN * float(np.max(np.abs(before))):
        raise ValueError(
            f"the instruction {text!r} is stored with two vectors, {apart:.3g} apart: a policy "
            "could not know which one is meant; leave one of them out"
        )


def merge_tables(tables: Iterable[tuple[str, InstructionTable | None]]) -> InstructionTable:
    """The table of several tasks, given by name.

    Raises:
      ValueError: a task has no vectors or those of another encoder, or two have different vectors
        for one text.
    """
    embeddings: dict[str, np.ndarray] = {}
    encoder: InstructionEncoder | None = None
    for name, table in tables:
        if table is None:
            raise ValueError(
                f"task {name!r}: no vectors are stored with its instructions, but the model reads "
                "them (RT1Config.instruction 'embedding'): train on tasks that have some, or let "
                "the model learn its own: --gin.RT1Config.instruction=tokens"
            )
        if encoder not in (None, table.encoder):
            raise ValueError(
                f"task {name!r}: its instructions' vectors are of {table.encoder}, those of the "
                f"other tasks of {encoder}: one model cannot read both"
            )
        encoder = table.encoder
        try:
            for text, vector in table.embeddings.items():
                add_embedding(embeddings, text, vector)
        except ValueError as error:
            raise ValueError(f"task {name!r}: {error}") from None
    if encoder is None:
        raise ValueError("there are no robot tasks, so there are no instructions")
    return InstructionTable(encoder, embeddings)
