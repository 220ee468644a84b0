"""The training step: gradients of the whole batch, a guard, an update."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rt2_jax.models.losses import normalize_weights
from rt2_jax.training.freezing import join_frozen, split_frozen
from rt2_jax.training.metrics import SourceRules, SourceSums, StepMetrics
from rt2_jax.training.partitioning import Partitioner
from rt2_jax.training.train_state import Model, TrainState, TrainStateInitializer

Batch = Mapping[str, jax.Array]
Gradients = Callable[[Any, Batch, jax.Array], tuple[Any, jax.Array, SourceSums]]


class TrainStep:
    """The step: (state, global batch, the run's key) -> (new state, metrics).

    It is compiled when it is first called, or ahead of that, see `compile_ahead`.

    Args:
      step: of these three, under `jax.jit`.
      partitioner: whose mesh and rules hold within it.
    """

    def __init__(self, step: Any, partitioner: Partitioner) -> None:
        self._step, self._partitioner = step, partitioner
        self._ahead: concurrent.futures.Future[Any] | None = None

    def __call__(
        self, state: TrainState, batch: Batch, rng: jax.Array
    ) -> tuple[TrainState, StepMetrics]:
        step = self._ready()
        with self._partitioner.active():
            result: tuple[TrainState, StepMetrics] = step(state, batch, rng)
            return result

    def memory_analysis(self) -> Any:
        """What XLA plans for the step, as it says of a program that was compiled ahead."""
        return self._ready().memory_analysis()

    def lower(self, state: Any, batch: Any, rng: Any) -> jax.stages.Lowered:
        """The step before it is compiled, of arrays or of their shapes."""
        with self._partitioner.active():
            lowered: jax.stages.Lowered = self._step.lower(state, batch, rng)
            return lowered

    def compile_ahead(self, state: TrainState, batch: Mapping[str, jax.ShapeDtypeStruct]) -> None:
        """Begins to compile in a thread, while parameters are made or restored and data warm up.

        The first call waits for it, and raises what went wrong; calls take these shapes alone.

        Args:
          state: `TrainStateInitializer.abstract`.
          batch: shapes and dtypes of the global batch.
        """
        sharding = self._partitioner.batch_sharding
        shapes = {
            name: jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=sharding)
            for name, each in batch.items()
        }
        key = jax.eval_shape(lambda: jax.random.key(0))
        pool = concurrent.futures.ThreadPoolExecutor(1, "compile")
        self._ahead = pool.submit(lambda: self.lower(state, shapes, key).compile())
        pool.shutdown(wait=False)

    def _ready(self) -> Any:
        if self._ahead is not None:
            self._step, self._ahead = self._ahead.result(), None
        return self._step


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """How a step is computed.

    Attributes:
      num_microbatches: the batch goes through the model in this many parts, one after another, to
        save memory; the result is that of the whole batch.
      clip_norm: largest global norm of the gradient (Pascanu et al. 2013); None for no limit.
      compiler_options: XLA's, of this step alone, as
        `{'xla_jf_spmd_threshold_for_windowed_einsum_mib': '1000000'}`; each belongs to a platform,
        and an unknown one is refused when the step is compiled.

    Raises:
      ValueError: one is not positive.
    """

    num_microbatches: int = 1
    clip_norm: float | None = None
    compiler_options: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("num_microbatches", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"StepConfig.{name}: found {value}, expected a positive number")

    def check_batch_size(self, batch_size: int, partitioner: Partitioner) -> None:
        """Refuses a global batch size that cannot be divided.

        Raises:
          ValueError: it is no multiple of microbatches times parts.
        """
        parts = partitioner.batch_parts
        if batch_size % (self.num_microbatches * parts):
            raise ValueError(
                f"batch size: found {batch_size}, expected a multiple of "
                f"{self.num_microbatches} microbatches x {parts} parts of the mesh "
                f"{dict(partitioner.mesh.shape)}"
            )


def make_gradients(
    model: Model, initializer: TrainStateInitializer, rules: SourceRules, config: StepConfig
) -> Gradients:
    """What a step computes of its batch, see `make_train_step`.

    Returns:
      (parameters, global batch, the step's key) -> gradients of what trains and the loss, both
      divided, and the sums for each source.
    """
    layouts = jax.tree.map(lambda leaf: leaf.sharding, initializer.abstract.params)
    of_trained, _ = split_frozen(layouts, initializer.frozen)

    def gradients(params: Any, batch: Batch, rng: jax.Array) -> tuple[Any, jax.Array, SourceSums]:
        """Of the loss summed over these examples; the loss; the sums for each source."""
        trained, kept = split_frozen(params, initializer.frozen)

        def summed_loss(trained: Any) -> tuple[jax.Array, SourceSums]:
            sums = model.example_sums(join_frozen(trained, kept), batch, rng)
            loss = jnp.sum(sums.cross_entropy + sums.z_loss)
            return loss, rules.sums(sums, batch)

        (loss, sources), grads = jax.value_and_grad(summed_loss, has_aux=True)(trained)
        # Added up and scattered at once, not added up everywhere and cut.
        return jax.lax.with_sharding_constraint(grads, of_trained), loss, sources

    def accumulated(params: Any, batch: Batch, rng: jax.Array) -> tuple[Any, jax.Array, SourceSums]:
        count = config.num_microbatches
        if count == 1:
            return gradients(params, batch, rng)

        def split(x: jax.Array) -> jax.Array:
            # Every device gives rows to every microbatch, so that none has to be moved.
            return jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1)

        def add(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradients(params, *part)), None

        parts = jax.tree.map(split, dict(batch)), jax.random.split(rng, count)
        shapes = jax.eval_shape(gradients, params, *jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.scan(add, zeros, parts)[0]

    def whole(params: Any, batch: Batch, rng: jax.Array) -> tuple[Any, jax.Array, SourceSums]:
        batch, divisor = weigh(model, rules, batch)
        grads, loss, sources = accumulated(params, batch, rng)
        return jax.tree.map(lambda grad: grad / divisor, grads), loss / divisor, sources

    return whole


def weigh(model: Model, rules: SourceRules, batch: Batch) -> tuple[dict[str, jax.Array], jax.Array]:
    """The batch with the weights that count in the loss, and what the summed loss is divided by."""
    factor = model.loss_normalizing_factor
    if factor == "AVERAGE_PER_SEQUENCE":  # of an example, before its source's weight
        weights, _ = normalize_weights(factor, batch)
        batch = rules.apply({**batch, "decoder_loss_weights": weights})
        weights = batch["decoder_loss_weights"]
        divisor = jnp.sum(weights)
    else:
        batch = rules.apply(batch)
        weights, divisor = normalize_weights(factor, batch)
        if factor is None:
            divisor = jnp.sum(weights)
    divisor = jnp.where(divisor == 0, 1, divisor)
    return {**batch, "decoder_loss_weights": weights}, divisor


def make_train_step(
    model: Model,
    initializer: TrainStateInitializer,
    partitioner: Partitioner,
    learning_rate: Callable[[jax.Array], jax.Array],
    rules: SourceRules,
    config: StepConfig = StepConfig(),
) -> TrainStep:
    """The compiled step: (state, global batch, the run's key) -> (new state, metrics).

    `rules` say what counts of the examples of each source. The loss is the sum over all weighted
    targets divided once: by the sum of their weights, or by what the model's
    `loss_normalizing_factor` says of the whole batch. (T5X divides within every microbatch and adds
    up, which multiplies gradients by up to their number.) The key of a step's dropout is a function
    of the run's key and the step. A step whose loss or gradient is not finite changes nothing but
    the step. Frozen parameters have no gradient, not in the norm either, and are passed on as they
    are. The memory of the state given is used again.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, initializer.abstract)

    gradients = make_gradients(model, initializer, rules, config)

    def step(state: TrainState, batch: Batch, rng: jax.Array) -> tuple[TrainState, StepMetrics]:
        rng = jax.random.fold_in(rng, state.step)
        grads, loss, sources = gradients(state.params, batch, rng)
        norm = optax.tree.norm(grads)
        if config.clip_norm is not None:
            scale = jnp.minimum(1.0, config.clip_norm / norm)
            grads = jax.tree.map(lambda grad: grad * scale, grads)
        rate = learning_rate(state.step)
        trained, kept = split_frozen(state.params, initializer.frozen)
        updates, param_states = initializer.transformation.update(
            grads, state.param_states, trained, step=state.step, learning_rate=rate
        )
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)

        def choose(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(finite, new, old)

        new = jax.tree.map(choose, optax.apply_updates(trained, updates), trained)
        average = state.ema
        if initializer.ema is not None:
            average = initializer.ema.update(average, new, state.step)
            average = jax.tree.map(choose, average, state.ema)
        new_state = TrainState(
            step=state.step + 1,
            params=join_frozen(new, kept),
            param_states=jax.tree.map(choose, param_states, state.param_states),
            ema=average,
        )
        return new_state, StepMetrics(loss, norm, rate, ~finite, sources)

    jitted = jax.jit(
        step,
        in_shardings=(shardings, partitioner.batch_sharding, partitioner.replicated),
        out_shardings=(shardings, partitioner.replicated),
        donate_argnums=0,
        compiler_options={**partitioner.compiler_options, **config.compiler_options},
    )
    return TrainStep(jitted, partitioner)
