"""The parts of a model, how many parameters they have, and how many were published."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax

from rt2_jax.models.config import Config, ModelConfig
from rt2_jax.models.published_counts import PUBLISHED_COUNTS, PublishedCount

_VISION = ("vision",)
_BRIDGE = ("vision_projection", "slot_embedding")


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a model.

    Attributes:
      name: of the published model that it is, or what it does.
      parameters: how many it has here.
      published: the published number, or None.
    """

    name: str
    parameters: int
    published: PublishedCount | None = None

    @property
    def compared(self) -> int:
        """The parameters of what the published number counts."""
        elsewhere = {} if self.published is None else self.published.elsewhere
        return self.parameters + sum(elsewhere.values())

    @property
    def difference(self) -> float | None:
        """Of `compared` from the published number, as a part of it."""
        if self.published is None:
            return None
        return self.compared / self.published.parameters - 1


def model_parts(config: ModelConfig, params: Mapping[str, Any]) -> tuple[Part, ...]:
    """Picture encoder, what stands between, and language model.

    Args:
      config: of the model.
      params: its parameters, or their shapes.
    """
    counts = {name: _count(tree) for name, tree in params.items()}
    vision = sum(counts.pop(name) for name in _VISION)
    bridge = sum(counts.pop(name, 0) for name in _BRIDGE)
    return (
        _part("picture encoder", config.vision, vision),
        Part("between them", bridge),
        _part("language model", config.text, sum(counts.values())),
    )


def _part(what: str, config: Config, parameters: int) -> Part:
    for name, published in PUBLISHED_COUNTS.items():
        if _shape(published.config) == _shape(config):
            return Part(f"{what} ({name})", parameters, published)
    return Part(what, parameters)


def _shape(config: Config) -> Config:
    """The configuration without what changes no parameter, or next to none (positions)."""
    free = {"image_size": (config.patch_size,) * 2} if hasattr(config, "patch_size") else {}
    free |= {"dropout_rate": 0.0} if hasattr(config, "dropout_rate") else {}
    return dataclasses.replace(config, **free)


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
