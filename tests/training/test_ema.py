"""The average of the parameters: its formula, kept over restarts, read by whoever asks for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen.partitioning import AxisMetadata

from rt2_jax.models.losses import ExampleSums
from rt2_jax.training.checkpoints import Checkpoints, restore_params
from rt2_jax.training.ema import EMA
from rt2_jax.training.export import export_params
from rt2_jax.training.metrics import SourceRules
from rt2_jax.training.optax_schedules import OptaxSchedule
from rt2_jax.training.optimizers import SGD
from rt2_jax.training.step import make_train_step
from rt2_jax.training.train_state import train_state_initializer


class Parabola:
    """The loss is the squared distance of `near` and `far` from the tokens' mean."""

    loss_normalizing_factor = None
    optimizer_def = SGD(0.0)

    def get_initial_variables(self, rng, input_shapes, input_types=None):
        return {
            "params": {name: {"bias": jnp.full(4, i, jnp.float32)} for i, name in enumerate("ab")},
            "params_axes": {name: {"bias_axes": AxisMetadata(("embed",))} for name in "ab"},
        }

    def example_sums(self, params, batch, dropout_rng=None):
        weight = batch["decoder_loss_weights"].sum(1)
        targets = batch["decoder_target_tokens"].mean(1)[:, None]
        distance = sum(((params[name]["bias"] - targets) ** 2).sum(1) for name in "ab")
        return ExampleSums(weight * distance, 0 * weight, 0 * weight, weight, weight)


class Training:
    def __init__(self, tiny, ema, frozen=()):
        self.partitioner, self.data = tiny.make_partitioner(), tiny.Batches()
        model = Parabola()
        self.initializer = train_state_initializer(
            model, self.partitioner, *self.data.shapes_and_types(), frozen=frozen, ema=ema
        )
        rate = OptaxSchedule("constant", {"value": 0.01})
        rules = SourceRules(tiny.SOURCES)
        self.step = make_train_step(model, self.initializer, self.partitioner, rate, rules)

    def begin(self):
        return self.initializer.init(jax.random.key(0))

    def go_on(self, state, bad=False):
        batch = dict(next(self.data))
        if bad:
            batch["decoder_loss_weights"] = batch["decoder_loss_weights"] * np.float32(np.nan)
        return self.step(state, self.partitioner.to_devices(batch), jax.random.key(1))


def assert_equal(found, expected, **tolerance):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **tolerance),
        jax.device_get(found),
        jax.device_get(expected),
    )


def test_it_is_the_parameters_until_its_first_step_and_then_their_average(tiny):
    training = Training(tiny, EMA(decay=0.75, start_step=2), frozen=("b/.*",))
    state = training.begin()
    expected = jax.device_get(state.params["a"])
    assert_equal(state.ema, {"a": expected}, rtol=0)
    for step in range(6):
        state, metrics = training.go_on(state, bad=step == 4)
        assert bool(metrics.skipped) == (step == 4)
        new, decay = jax.device_get(state.params["a"]), 0.75 if step >= 2 else 0.0
        if step != 4:
            expected = jax.tree.map(lambda a, b, d=decay: d * a + (1 - d) * b, expected, new)
        assert_equal(state.ema, {"a": expected}, rtol=1e-6)
    assert np.abs(state.ema["a"]["bias"] - state.params["a"]["bias"]).max() > 0.01


def test_it_changes_nothing_of_the_training(tiny):
    with_it, without = Training(tiny, EMA(0.9)), Training(tiny, None)
    a, b = with_it.begin(), without.begin()
    for _ in range(2):
        (a, _), (b, _) = with_it.go_on(a), without.go_on(b)
    assert_equal(a.params, b.params, rtol=0)
    assert b.ema is None


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    """A run of two steps with `b` frozen: its training, its state, its checkpoint."""
    directory = tmp_path_factory.mktemp("ema")
    training = Training(tiny, EMA(0.9), frozen=("b/.*",))
    state = training.begin()
    for _ in range(2):
        state, _ = training.go_on(state)
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(state, {}, {"model": "tiny"})
        checkpoints.wait()
    return training, jax.device_get(state), directory / "checkpoint_2"


def test_a_checkpoint_gives_it_back_exactly_and_training_goes_on_as_before(saved):
    training, state, path = saved
    with Checkpoints(path.parent) as checkpoints:
        restored, _ = checkpoints.restore(training.initializer.abstract)
    assert_equal(restored, state, rtol=0)
    data = training.data.get_state()
    again, _ = training.go_on(restored)
    training.data.set_state(data)
    sharding = training.partitioner.replicated
    straight, _ = training.go_on(jax.device_put(state, sharding))
    assert_equal(again, straight, rtol=0)
    assert np.abs(again.ema["a"]["bias"] - again.params["a"]["bias"]).max() > 0.01


def test_it_is_read_and_exported_when_asked_for(saved, tmp_path):
    training, state, path = saved
    abstract = training.initializer.abstract.params
    expected = {**state.params, **state.ema}  # frozen parameters are their own average
    assert_equal(restore_params(path, abstract), state.params, rtol=0)
    assert_equal(restore_params(path, abstract, "ema"), expected, rtol=0)
    exported = export_params(path, tmp_path, which="ema")
    assert_equal(restore_params(exported, abstract), expected, rtol=0)
    with pytest.raises(ValueError, match="has no average of the parameters"):
        restore_params(exported, abstract, "ema")
    with pytest.raises(ValueError, match="found 'mean', expected 'params' or 'ema'"):
        restore_params(path, abstract, "mean")


def test_a_run_that_begins_to_keep_one_or_ends_it_says_so(saved, tiny, tmp_path, caplog):
    training, state, path = saved
    without = Training(tiny, None, frozen=("b/.*",))
    with Checkpoints(path.parent) as checkpoints:
        restored, _ = checkpoints.restore(without.initializer.abstract)
    assert restored.ema is None and "its average of the parameters ends" in caplog.text
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(restored, {}, {"model": "tiny"})
        checkpoints.wait()
        begun, _ = checkpoints.restore(training.initializer.abstract)
    assert_equal(begun.ema, {"a": state.params["a"]}, rtol=0)
    assert "this run's begins with it" in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"decay": 1.0}, "decay: found 1.0"), ({"start_step": -1}, "start_step: found -1")],
)
def test_an_average_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=f"EMA.{message}"):
        EMA(**fields)
