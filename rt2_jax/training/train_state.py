"""What a training step changes: the step, the parameters, the optimizer's state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import serialization, struct

from rt2_jax.models.losses import ExampleSums
from rt2_jax.training.ema import EMA
from rt2_jax.training.freezing import frozen_names, split_frozen
from rt2_jax.training.lora import ADAPTERS, is_adapted
from rt2_jax.training.optimizers import with_multipliers
from rt2_jax.training.partitioning import Partitioner, logical_axes


class Model(Protocol):
    """What the trainer needs of a model: T5X's contract, and the loss of every example."""

    loss_normalizing_factor: float | str | None
    optimizer_def: Any

    def get_initial_variables(
        self,
        rng: jax.Array,
        input_shapes: Mapping[str, tuple[int, ...]],
        input_types: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """`params` and `params_axes`."""

    def example_sums(
        self, params: Any, batch: Mapping[str, Any], dropout_rng: jax.Array | None = None
    ) -> ExampleSums:
        """The parts of the loss of every example, [B]."""


@struct.dataclass
class TrainState:
    """The state of a run, apart from its data.

    Attributes:
      step: int32 [], how many steps were taken: the index of the next batch.
      params: the parameters; with LoRA base and adapters, see `AdaptedModel`.
      param_states: the optimizer's state, of the parameters that train alone.
      ema: the average of the parameters that train, see `EMA`; None for none.
    """

    step: Any
    params: Any
    param_states: Any
    ema: Any = None

    def state_dict(self) -> dict[str, Any]:
        """Nested dictionaries, as T5X keeps them in a checkpoint; of LoRA the adapters alone."""
        return {
            "target": self.params[ADAPTERS] if is_adapted(self.params) else self.params,
            "state": {
                "step": self.step,
                "param_states": serialization.to_state_dict(self.param_states),
            },
        }

    def restore_state(self, state_dict: Mapping[str, Any]) -> TrainState:
        """A state of this structure from what `state_dict` gave.

        A base is this one's; the average begins with the parameters.
        """
        state, params = state_dict["state"], state_dict["target"]
        if is_adapted(self.params):
            params = {**self.params, ADAPTERS: params}
        return TrainState(
            step=state["step"],
            params=params,
            param_states=serialization.from_state_dict(self.param_states, state["param_states"]),
        )


@struct.dataclass
class TrainStateInitializer:
    """Makes train states of one model, laid out on one mesh.

    Attributes:
      init: (key) -> `TrainState`, compiled; it needs the devices.
      transformation: the optimizer of the parameters that train.
      abstract: the state's shapes, dtypes and shardings; no device memory was used for it.
      frozen: the paths of the parameters that don't train.
      ema: of the parameters that train; None for none.
    """

    init: Any = struct.field(pytree_node=False)
    transformation: optax.GradientTransformationExtraArgs = struct.field(pytree_node=False)
    abstract: TrainState
    frozen: frozenset[str] = struct.field(pytree_node=False, default=frozenset())
    ema: EMA | None = struct.field(pytree_node=False, default=None)

    def begin_ema(self, state: TrainState) -> TrainState:
        """The state with an average that begins with its parameters, if one is kept."""
        if self.ema is None:
            return state
        trained, _ = split_frozen(state.params, self.frozen)
        return dataclasses.replace(state, ema=jax.tree.map(jnp.copy, trained))


def train_state_initializer(
    model: Model,
    partitioner: Partitioner,
    input_shapes: Mapping[str, tuple[int, ...]],
    input_types: Mapping[str, Any] | None = None,
    frozen: Sequence[str] = (),
    rate_multipliers: Mapping[str, float] = MappingProxyType({}),
    ema: EMA | None = None,
) -> TrainStateInitializer:
    """Everything about a model's state that is known before memory is used for it.

    Args:
      model: its `optimizer_def` is an `Optimizer`.
      partitioner: the mesh and the rules.
      input_shapes: the global shape of every feature of a batch.
      input_types: their dtypes.
      frozen: regular expressions; parameters whose path one of them matches don't train.
      rate_multipliers: see `with_multipliers`.
      ema: the average that is kept of what trains; None for none.

    Raises:
      TypeError: the model has no optimizer.
      KeyError, ValueError: the parameters cannot be laid out or frozen so.
    """
    if not hasattr(model.optimizer_def, "transformation"):
        raise TypeError(
            f"model.optimizer_def: found {model.optimizer_def!r}, expected an optimizer such as "
            "Adafactor() or AdamW()"
        )

    def variables(rng: jax.Array) -> dict[str, Any]:
        return model.get_initial_variables(rng, input_shapes, input_types)

    shapes = jax.eval_shape(variables, jax.random.key(0))
    axes = logical_axes(shapes["params_axes"])
    names = frozen_names(shapes["params"], frozen)
    trained_axes, _ = split_frozen(axes, names)
    transformation = with_multipliers(
        model.optimizer_def.transformation(trained_axes), trained_axes, rate_multipliers
    )

    def init(rng: jax.Array) -> TrainState:
        params = variables(rng)["params"]
        trained, _ = split_frozen(params, names)
        return TrainState(jnp.zeros((), jnp.int32), params, transformation.init(trained))

    state = jax.eval_shape(init, jax.random.key(0))
    parameters = partitioner.parameter_shardings(state.params, axes)
    shardings = TrainState(
        step=partitioner.replicated,
        params=parameters,
        param_states=partitioner.optimizer_shardings(state.param_states, state.params, parameters),
    )
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        shardings,
    )
    if ema is not None:
        abstract = dataclasses.replace(abstract, ema=split_frozen(abstract.params, names)[0])
    compiled = jax.jit(init, out_shardings=shardings, compiler_options=partitioner.compiler_options)
    initializer = TrainStateInitializer(compiled, transformation, abstract, names, ema)
    # Not compiled with the rest: a step is given its memory, so parameters and average need two.
    return dataclasses.replace(initializer, init=lambda rng: initializer.begin_ema(compiled(rng)))
