"""LoRA (Hu et al. 2022) on any kernel: W + alpha / rank * A B, computed inside the loss.

No module knows of it: a model is given the merged parameters, so that whatever it does with a
kernel (scan it over layers, divide it over a mesh, share it) it does with the merged one.
"""

from __future__ import annotations

import dataclasses
import math
import string
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.linen.partitioning import AxisMetadata
from flax.traverse_util import flatten_dict, unflatten_dict

from rt2_jax.models.losses import ExampleSums
from rt2_jax.training.parameter_names import check_patterns, first_matches
from rt2_jax.training.partitioning import logical_axes

BASE, ADAPTERS = "base", "adapters"
"""What the parameters of a run with LoRA are divided into; the base does not train."""


class Layout(NamedTuple):
    """How a kernel is taken as a matrix, or as one for each scanned layer.

    Attributes:
      layers: which of its axes counts layers; -1 for none.
      inputs: so many of its other axes, the first ones, are the matrix's rows.
    """

    layers: int
    inputs: int


Layouts = Mapping[str, Layout]


@dataclasses.dataclass(frozen=True)
class LoRA:
    """Which kernels get adapters, and how large.

    Attributes:
      patterns: regular expressions over paths, as `--dry_run` prints them without LoRA; each must
        match a path as a whole. Of what they match, every parameter with two axes or more (besides
        that of the layers) is adapted; biases and scales stay as they are.
      rank: of the product A B.
      alpha: the product is multiplied by alpha / rank.
      name: of the adapters, in checkpoints.

    Raises:
      ValueError: no patterns, no regular expression, a rank or alpha that is not positive, or a
        name that is no folder's.
    """

    patterns: tuple[str, ...]
    rank: int = 16
    alpha: float = 16.0
    name: str = "lora"

    def __post_init__(self) -> None:
        if not self.patterns:
            raise ValueError("LoRA.patterns: found (), expected regular expressions")
        check_patterns(self.patterns, "LoRA.patterns")
        for field in ("rank", "alpha"):
            if not 0 < getattr(self, field) < math.inf:
                raise ValueError(
                    f"LoRA.{field}: found {getattr(self, field)}, expected a positive number"
                )
        if not self.name or set(self.name) - set(string.ascii_letters + string.digits + "_-"):
            raise ValueError(
                f"LoRA.name: found {self.name!r}, expected letters, digits, '-' and '_'"
            )

    @property
    def scale(self) -> float:
        """What the product is multiplied by."""
        return self.alpha / self.rank

    def layouts(self, axes: Mapping[str, Any]) -> dict[str, Layout]:
        """The kernels that are adapted, by their paths.

        Args:
          axes: the tree of the parameters with tuples of logical axis names.

        Raises:
          ValueError: a pattern matches nothing, or nothing with two axes.
        """
        flat = flatten_dict(axes, sep="/")
        found: dict[str, Layout] = {}
        for pattern in self.patterns:
            matched = first_matches((pattern,), list(flat), "LoRA.patterns")
            kernels = {name: _layout(flat[name]) for name in matched}
            adapted = {name: each for name, each in kernels.items() if each is not None}
            if not adapted:
                raise ValueError(
                    f"LoRA.patterns: {pattern!r} matches {', '.join(list(matched)[:4])}, which "
                    "have one axis besides that of the layers; expected kernels"
                )
            found.update(adapted)
        return found


class AdaptedModel:
    """A model whose parameters are `{'base': ..., 'adapters': ...}`, for the trainer.

    An adapter stands at its kernel's path and has `lora_a` [layers, inputs..., rank], normal with
    the deviation inputs ** -0.5, and `lora_b` [layers, rank, outputs...], 0: at first the model is
    the base. Their logical axes are the kernel's.

    Args:
      model: the trainer's contract, see `train_state.Model`.
      lora: which kernels.
      input_shapes: the global shape of every feature of a batch.
      input_types: their dtypes.

    Attributes:
      layouts: of the kernels that are adapted.

    Raises:
      ValueError: as `LoRA.layouts`.
    """

    def __init__(
        self,
        model: Any,
        lora: LoRA,
        input_shapes: Mapping[str, tuple[int, ...]],
        input_types: Mapping[str, Any] | None = None,
    ) -> None:
        self._model, self._lora = model, lora
        self.optimizer_def = model.optimizer_def
        self.loss_normalizing_factor = model.loss_normalizing_factor
        shapes = jax.eval_shape(
            lambda: model.get_initial_variables(jax.random.key(0), input_shapes, input_types)
        )
        self._axes = flatten_dict(logical_axes(shapes["params_axes"]), sep="/")
        self.layouts = lora.layouts(unflatten_dict(self._axes, sep="/"))

    def get_initial_variables(
        self,
        rng: jax.Array,
        input_shapes: Mapping[str, tuple[int, ...]],
        input_types: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """`params` and `params_axes` of base and adapters."""
        variables = self._model.get_initial_variables(rng, input_shapes, input_types)
        flat = flatten_dict(variables["params"], sep="/")
        rank, params, axes = self._lora.rank, {}, {}
        for i, (name, layout) in enumerate(self.layouts.items()):
            layers, inputs, outputs = _parts(flat[name].shape, layout)
            key = jax.random.fold_in(jax.random.fold_in(rng, 2), i)
            a = jax.random.normal(key, (*layers, *inputs, rank), flat[name].dtype)
            params[f"{name}/lora_a"] = a * math.prod(inputs) ** -0.5
            params[f"{name}/lora_b"] = jnp.zeros((*layers, rank, *outputs), flat[name].dtype)
            layers, inputs, outputs = _parts(self._axes[name], layout)
            axes[f"{name}/lora_a_axes"] = AxisMetadata((*layers, *inputs, "lora_rank"))
            axes[f"{name}/lora_b_axes"] = AxisMetadata((*layers, "lora_rank", *outputs))
        return {
            "params": {BASE: variables["params"], ADAPTERS: unflatten_dict(params, sep="/")},
            "params_axes": {
                BASE: variables["params_axes"],
                ADAPTERS: unflatten_dict(axes, sep="/"),
            },
        }

    def example_sums(
        self, params: Any, batch: Mapping[str, Any], dropout_rng: jax.Array | None = None
    ) -> ExampleSums:
        """The parts of the loss of every example, [B], with the merged parameters."""
        whole = merge(params[BASE], params[ADAPTERS], self.layouts, self._lora.scale)
        return self._model.example_sums(whole, batch, dropout_rng)


def merge(base: Any, adapters: Any, layouts: Layouts, scale: float) -> Any:
    """The base's tree with W + scale * A B in the place of every adapted W, in W's dtype.

    Args:
      base: the parameters.
      adapters: `lora_a` and `lora_b` at the path of every adapted one.
      layouts: of these.
      scale: alpha / rank.
    """
    flat, pairs = flatten_dict(base, sep="/"), flatten_dict(adapters, sep="/")
    for name, layout in layouts.items():
        product = jnp.einsum(
            _product(len(flat[name].shape), layout),
            pairs[f"{name}/lora_a"],
            pairs[f"{name}/lora_b"],
            precision=jax.lax.Precision.HIGHEST,
        )
        flat[name] = (flat[name] + scale * product).astype(flat[name].dtype)
    return unflatten_dict(flat, sep="/")


def is_adapted(params: Any) -> bool:
    """Whether these are the parameters of a run with LoRA."""
    return isinstance(params, Mapping) and set(params) == {BASE, ADAPTERS}


def base_of(params: Any) -> Any:
    """The parameters that the model itself has: all, or with LoRA the base's."""
    return params[BASE] if is_adapted(params) else params


def _layout(axes: tuple[str, ...]) -> Layout | None:
    """None: no kernel.

    What reads the residual stream (`embed` first) has one axis of inputs, and one for each head and
    its width as outputs; all else, what writes it and convolutions too, has its outputs last.
    """
    rest = [name for name in axes if name != "layers"]
    if len(rest) < 2:
        return None
    reads = rest[0] == "embed" and rest[-1] != "embed"
    return Layout(axes.index("layers") if "layers" in axes else -1, 1 if reads else len(rest) - 1)


def _parts(of: tuple[Any, ...], layout: Layout) -> tuple[tuple[Any, ...], ...]:
    """A shape or names -> those of the layers, of the inputs and of the outputs."""
    rest = tuple(each for i, each in enumerate(of) if i != layout.layers)
    layers = () if layout.layers < 0 else (of[layout.layers],)
    return layers, rest[: layout.inputs], rest[layout.inputs :]


def _product(dimensions: int, layout: Layout) -> str:
    """What `einsum` makes of A and B so that it lies as the kernel does."""
    letters = tuple(string.ascii_lowercase[:dimensions])
    layers, inputs, outputs = map("".join, _parts(letters, layout))
    return f"{layers}{inputs}Z,{layers}Z{outputs}->{''.join(letters)}"
