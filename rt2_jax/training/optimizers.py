"""What the trainer needs of an optimizer, and optax's optimizers under this convention."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from rt2_jax.training.parameter_names import check_patterns, first_matches, matching


@runtime_checkable
class Optimizer(Protocol):
    """What the trainer needs of an optimizer: `Adafactor`, `AdamW`, `Lion` and `SGD` are some."""

    def transformation(self, axes: Any) -> optax.GradientTransformationExtraArgs:
        """The transformation for parameters with these logical axes.

        Its `update` takes the keywords `step` and `learning_rate`: a schedule belongs to the run,
        and the step is the train state's.
        """


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Attributes:
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      weight_decay: times the learning rate, the part of a parameter taken off at each step; with 0
        it is Adam.
      no_decay: regular expressions; parameters whose whole path one of them matches have no weight
        decay, e.g. `.*/(scale|bias)`.
    """

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    no_decay: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_patterns(self.no_decay, "AdamW.no_decay")

    def transformation(self, axes: Any) -> optax.GradientTransformationExtraArgs:
        """The transformation; of the logical axes the names of the parameters are used."""
        return _with_decay(
            optax.scale_by_adam(self.b1, self.b2, self.eps),
            self.weight_decay,
            decayed(axes, self.no_decay, "AdamW.no_decay"),
        )


@dataclasses.dataclass(frozen=True)
class Lion:
    """Lion (Chen et al. 2023, algorithm 2): the sign of a momentum; one moment is kept, not two.

    Its learning rates are some 3 to 10 times smaller than Adam's, its weight decay so much larger
    (section 5).

    Attributes:
      b1: how the momentum and the gradient are mixed in an update.
      b2: decay of the momentum.
      weight_decay: as in `AdamW`.
      no_decay: as in `AdamW`.
    """

    b1: float = 0.9
    b2: float = 0.99
    weight_decay: float = 0.0
    no_decay: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_patterns(self.no_decay, "Lion.no_decay")

    def transformation(self, axes: Any) -> optax.GradientTransformationExtraArgs:
        """The transformation; of the logical axes the names of the parameters are used."""
        return _with_decay(
            optax.scale_by_lion(self.b1, self.b2),
            self.weight_decay,
            decayed(axes, self.no_decay, "Lion.no_decay"),
        )


@dataclasses.dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum.

    Attributes:
      momentum: its decay; 0 for none, and then no state.
      nesterov: looks ahead (Sutskever et al. 2013).
      weight_decay: as in `AdamW`: not part of the gradient.
      no_decay: as in `AdamW`.
    """

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    no_decay: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_patterns(self.no_decay, "SGD.no_decay")

    def transformation(self, axes: Any) -> optax.GradientTransformationExtraArgs:
        """The transformation; of the logical axes the names of the parameters are used."""
        return _with_decay(
            optax.trace(self.momentum, self.nesterov) if self.momentum else optax.identity(),
            self.weight_decay,
            decayed(axes, self.no_decay, "SGD.no_decay"),
        )


def decayed(axes: Any, no_decay: Sequence[str], where: str) -> Any:
    """The tree of the parameters with True where weights decay; None: everywhere.

    Args:
      axes: the tree with tuples of logical axis names.
      no_decay: regular expressions over paths, of what does not decay.
      where: what errors call them.

    Raises:
      ValueError: a pattern matches nothing that trains.
    """
    if not no_decay:
        return None
    names = list(flatten_dict(axes, sep="/"))
    kept = {name for pattern in no_decay for name in matching(pattern, names, where)}
    return unflatten_dict({name: name not in kept for name in names}, sep="/")


def check_multipliers(multipliers: Mapping[str, float]) -> None:
    """Refuses what no learning rate can be multiplied by.

    Raises:
      ValueError: the message names the pattern.
    """
    where = "RunConfig.rate_multipliers"
    check_patterns(multipliers, where)
    for pattern, factor in multipliers.items():
        if factor == 0:
            raise ValueError(
                f"{where}: found 0 for {pattern!r}; parameters that are not to change are frozen, "
                f"which saves their gradient and state too: --gin.FROZEN=\"('{pattern}',)\""
            )
        if not 0 < factor < float("inf"):
            raise ValueError(f"{where}: found {factor} for {pattern!r}, expected above 0")


def with_multipliers(
    transformation: optax.GradientTransformationExtraArgs,
    axes: Any,
    multipliers: Mapping[str, float],
) -> optax.GradientTransformationExtraArgs:
    """The transformation with updates multiplied, parameter by parameter; its state is the same.

    The whole update, weight decay included, is as if the learning rate were another.

    Args:
      transformation: of the parameters that train.
      axes: their tree, with tuples of logical axis names.
      multipliers: regular expression -> factor; the first that matches a whole path counts, and
        what none matches has 1.

    Raises:
      ValueError: a pattern matches nothing that trains, or nothing that an earlier one left.
    """
    if not multipliers:
        return transformation
    names = list(flatten_dict(axes, sep="/"))
    matched = first_matches(tuple(multipliers), names, "RunConfig.rate_multipliers")
    factors = unflatten_dict(
        {name: multipliers[matched[name]] if name in matched else 1.0 for name in names}, sep="/"
    )

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **keywords: Any
    ) -> tuple[optax.Updates, Any]:
        updates, state = transformation.update(updates, state, params, **keywords)
        return jax.tree.map(lambda factor, each: factor * each, factors, updates), state

    return optax.GradientTransformationExtraArgs(transformation.init, update)


def _with_decay(
    direction: optax.GradientTransformation, weight_decay: float, mask: Any
) -> optax.GradientTransformationExtraArgs:
    """Steps along the direction, with weight decay where the mask is True."""

    def decay(updates: optax.Updates, state: Any, params: Any = None, **_: Any) -> Any:
        def add(update: jax.Array, param: jax.Array, decays: bool = True) -> jax.Array:
            return update + weight_decay * param if decays else update

        masks = () if mask is None else (mask,)
        return jax.tree.map(add, updates, params, *masks), state

    def empty(params: optax.Params) -> optax.EmptyState:
        return optax.EmptyState()

    return optax.chain(
        direction,
        # Its state has one form with a mask and without, unlike optax's, so that a run may go on
        # with other parameters left out.
        optax.GradientTransformationExtraArgs(empty, decay),
        optax.GradientTransformationExtraArgs(empty, _descend),
    )


def _descend(
    updates: optax.Updates,
    state: optax.EmptyState,
    params: optax.Params | None = None,
    *,
    learning_rate: jax.Array,
    **_: Any,
) -> tuple[optax.Updates, optax.EmptyState]:
    return jax.tree.map(lambda update: -learning_rate * update, updates), state
