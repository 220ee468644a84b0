"""The parts of a model, how many parameters they have, and how many were published."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from rt2_jax.models.config import DecoderOnlyConfig, TextConfig, VisionConfig
from rt2_jax.models.config_json import ModelConfig
from rt2_jax.models.published_counts import PUBLISHED_COUNTS, PublishedCount
from rt2_jax.models.rt1.config import RT1_35M, RT1Config

_BETWEEN = ("vision_projection", "slot_embedding")


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a model.

    Attributes:
      name: of the published model that it is, or what it does.
      parameters: how many it has here.
      published: the published number, or None.
      inside: it is counted in a part before it.
    """

    name: str
    parameters: int
    published: PublishedCount | None = None
    inside: bool = False

    @property
    def compared(self) -> int:
        """The parameters of what the published number counts."""
        elsewhere = {} if self.published is None else self.published.elsewhere
        return self.parameters + sum(elsewhere.values())

    @property
    def difference(self) -> str:
        """Of `compared` from the published number, in percent; "" without one."""
        if self.published is None:
            return ""
        return f"{100 * (self.compared / self.published.parameters - 1):+.3f} %"


def model_parts(config: ModelConfig, params: Mapping[str, Any]) -> tuple[Part, ...]:
    """Picture encoder, what stands between, and language model; or RT-1 and its parts.

    Args:
      config: of the model.
      params: its parameters, or their shapes.
    """
    counts = {name: _count(tree) for name, tree in params.items()}
    if isinstance(config, RT1Config):
        # One published number for all but the sentence encoder, which RT-1 had outside.
        encoder = counts.pop("sentence_encoder", 0)
        known = PUBLISHED_COUNTS["RT-1"] if _is_rt1(config) else None
        whole = Part("RT-1" if known else "policy", sum(counts.values()), known)
        inside = [
            Part(f"of it: {name.replace('_', ' ')}", count, inside=True)
            for name, count in counts.items()
        ]
        return (whole, *inside, *([Part("sentence encoder", encoder)] if encoder else []))
    vision = counts.pop("vision")
    between = sum(counts.pop(name, 0) for name in _BETWEEN)
    return (
        _part("picture encoder", config.vision, vision),
        Part("between them", between),
        _part("language model", config.text, sum(counts.values())),
    )


def total_parameters(parts: Iterable[Part]) -> int:
    """Of the whole model."""
    return sum(part.parameters for part in parts if not part.inside)


def _part(what: str, config: VisionConfig | TextConfig | DecoderOnlyConfig, count: int) -> Part:
    for name, published in PUBLISHED_COUNTS.items():
        if _same_shape(published.config, config):
            return Part(f"{what} ({name})", count, published)
    return Part(what, count)


def _same_shape(a: Any, b: Any) -> bool:
    """Whether they differ in nothing that changes more than the number of positions."""
    values = [dataclasses.asdict(config) for config in (a, b)]
    for each in values:
        for name in ("image_size", "dropout_rate"):
            each.pop(name, None)
    return type(a) is type(b) and values[0] == values[1]


def _is_rt1(config: RT1Config) -> bool:
    """Whether it is RT-1 as published, wherever the instruction's vector comes from."""
    like = dataclasses.replace(
        RT1_35M,
        instruction=config.instruction,
        vocab_size=config.vocab_size,
        dropout_rate=config.dropout_rate,
        dtype=config.dtype,
        scan_layers=config.scan_layers,
    )
    return config == like


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
