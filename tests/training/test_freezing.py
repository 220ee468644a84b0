"""Frozen parameters: chosen by name, untouched, without gradient, decay or optimizer state."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen.partitioning import AxisMetadata
from flax.traverse_util import flatten_dict

from rt2_jax.models.losses import ExampleSums
from rt2_jax.training.adafactor import Adafactor
from rt2_jax.training.checkpoints import Checkpoints, check_optimizer
from rt2_jax.training.execution import execute
from rt2_jax.training.freezing import check_same_frozen, frozen_names, join_frozen, split_frozen
from rt2_jax.training.metrics import SourceRules
from rt2_jax.training.optimizers import AdamW
from rt2_jax.training.report import memory_table, parameter_table
from rt2_jax.training.run import prepare
from rt2_jax.training.schedules import LearningRate
from rt2_jax.training.step import StepConfig, make_train_step
from rt2_jax.training.train_state import train_state_initializer

PARAMS = {"vision": {"norm": {"scale": 1, "bias": 2}, "kernel": 3}, "text": {"kernel": 4}}
VISION = {"vision/norm/scale", "vision/norm/bias", "vision/kernel"}


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ((), set()),
        (("vision/.*",), VISION),
        ((".*kernel",), {"vision/kernel", "text/kernel"}),
        (("vision/norm/(scale|bias)", "text/.*"), {"text/kernel", *VISION} - {"vision/kernel"}),
    ],
)
def test_a_pattern_freezes_what_it_matches_as_a_whole(patterns, names):
    found = frozen_names(PARAMS, patterns)
    assert found == names
    assert join_frozen(*split_frozen(PARAMS, found)) == PARAMS


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("vision",), r"'vision' matches no parameter as a whole; near: .*vision/\.\*"),
        (("vision/nrom/.*",), r"matches no parameter as a whole; near: vision/norm/\.\*"),
        (("zzz",), r"near: text/\.\*, vision/\.\*"),
        (("vision/(",), r"'vision/\(' is no regular expression: missing \)"),
        ((".*",), r"\('\.\*',\) match all 4 parameters; nothing would train"),
    ],
)
def test_a_pattern_that_freezes_nothing_or_all_is_refused(patterns, message):
    with pytest.raises(ValueError, match=rf"^RunConfig\.frozen: .*{message}"):
        frozen_names(PARAMS, patterns)


def test_a_run_refuses_what_is_no_regular_expression(run_config):
    with pytest.raises(ValueError, match=r"RunConfig.frozen: '\[' is no regular expression"):
        run_config(frozen=("[",))


class Product:
    """A product of two matrices of numbers; the gradient of `b` is a thousand times that of `a`."""

    loss_normalizing_factor = None

    def __init__(self, optimizer_def):
        self.optimizer_def = optimizer_def

    def get_initial_variables(self, rng, input_shapes, input_types=None):
        axes = AxisMetadata(("embed", "mlp"))
        kernels = jax.random.normal(rng, (2, 4, 4))
        return {
            "params": {name: {"kernel": kernels[i]} for i, name in enumerate("ab")},
            "params_axes": {name: {"kernel_axes": axes} for name in "ab"},
        }

    def example_sums(self, params, batch, dropout_rng=None):
        weight = batch["decoder_loss_weights"].sum(1)
        product = params["a"]["kernel"] @ (1e3 * params["b"]["kernel"])
        loss = weight * jnp.mean(jnp.sin(product / 1e3) + 1e-3 * product)
        return ExampleSums(loss, 0 * weight, 0 * weight, weight, weight)


class Training:
    """`Product` with frozen parameters, step by step."""

    def __init__(self, tiny, optimizer, frozen, clip_norm=None):
        self.partitioner, self.data = tiny.make_partitioner(), tiny.Batches()
        model = Product(optimizer)
        self.initializer = train_state_initializer(
            model, self.partitioner, *self.data.shapes_and_types(), frozen=frozen
        )
        rate = LearningRate(factors="constant", base_learning_rate=0.01)
        config = StepConfig(num_microbatches=2, clip_norm=clip_norm)
        self.step = make_train_step(
            model, self.initializer, self.partitioner, rate, SourceRules(tiny.SOURCES), config
        )

    def begin(self):
        return self.initializer.init(jax.random.key(0))

    def go_on(self, state):
        batch = self.partitioner.to_devices(next(self.data))
        return self.step(state, batch, jax.random.key(1))


OPTIMIZERS = [AdamW(weight_decay=0.1), Adafactor(beta1=0.9, weight_decay_rate=0.1)]


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(expected))


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["adamw", "adafactor"])
def test_frozen_parameters_stay_bit_for_bit_and_have_no_optimizer_state(optimizer, tiny):
    training = Training(tiny, optimizer, ("b/.*",))
    before = jax.device_get(training.begin())
    state = training.begin()
    for _ in range(2):
        state, _ = training.go_on(state)
    assert_equal(state.params["b"], before.params["b"])
    assert (state.params["a"]["kernel"] != before.params["a"]["kernel"]).all()
    held = flatten_dict(state.state_dict()["state"]["param_states"], sep="/")
    assert not [name for name in held if "b/" in name]
    assert [name for name in held if "a/kernel" in name]
    whole = Training(tiny, optimizer, ()).initializer.abstract
    count, of_all = (
        sum(leaf.size for leaf in jax.tree.leaves(x.param_states)) for x in (state, whole)
    )
    assert count <= of_all / 2 + 1


def test_the_gradient_norm_is_of_what_trains_alone(tiny):
    training = Training(tiny, AdamW(), ("b/.*",), clip_norm=0.01)
    state, metrics = training.go_on(training.begin())
    # Adam's first moment after one step is a tenth of the gradient.
    moment = state.param_states[0].mu["a"]["kernel"]
    np.testing.assert_allclose(jnp.linalg.norm(10 * moment), 0.01, rtol=1e-4)
    _, all_metrics = Training(tiny, AdamW(), ()).go_on(Training(tiny, AdamW(), ()).begin())
    assert 0.01 < metrics.gradient_norm < all_metrics.gradient_norm


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["adamw", "adafactor"])
def test_a_restart_goes_on_exactly_and_one_with_other_patterns_is_refused(
    optimizer, tiny, tmp_path
):
    training = Training(tiny, optimizer, ("b/.*",))
    state, _ = training.go_on(training.begin())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, {}, {})
        checkpoints.wait()
        restored, _ = checkpoints.restore(
            Training(tiny, optimizer, ("b/kernel",)).initializer.abstract
        )
    assert_equal(restored, state)
    path = tmp_path / "checkpoint_1"
    check_optimizer(path, training.initializer)
    for frozen, message in (((), "without state there.*b/kernel"), (("a/.*",), "here: a/kernel")):
        with pytest.raises(ValueError, match="was trained with other parameters frozen") as caught:
            check_optimizer(path, Training(tiny, optimizer, frozen).initializer)
        assert caught.match(message) and caught.match("INITIAL_CHECKPOINT_PATH")


def test_the_tables_say_how_many_numbers_train(run_config):
    run = prepare(run_config(frozen=("vision/.*",)))
    abstract = flatten_dict(run.initializer.abstract.params, sep="/")
    count = sum(leaf.size for name, leaf in abstract.items() if not name.startswith("vision/"))
    (line,) = (line for line in memory_table(run).splitlines() if line.startswith("of them"))
    assert f" {count:,} " in line
    for line in parameter_table(run).splitlines()[1:]:
        assert line.endswith("frozen" if line.startswith("vision/") else "yes")


def test_a_run_with_the_same_patterns_goes_on_as_if_it_had_never_stopped(quick_run, tmp_path):
    execute(quick_run(frozen=("vision/.*",)))
    directory = tmp_path / "run"
    whole = (directory / "metrics.jsonl").read_text().splitlines()
    shutil.rmtree(directory / "checkpoint_6")
    with pytest.raises(ValueError, match=r"without state there, trained here: .*vision/"):
        execute(quick_run())
    execute(quick_run(frozen=("vision/.*",)))
    again = (directory / "metrics.jsonl").read_text().splitlines()
    losses = [[json.loads(line)["loss"] for line in each] for each in (whole, again)]
    assert losses[0] == losses[1]


def test_another_optimizer_is_not_taken_for_other_patterns():
    adam = {"0": {"mu": PARAMS, "nu": PARAMS}}
    adafactor = {"text": {"kernel": {"v": 1}}, "vision": {"kernel": {"v": 1}}}
    check_same_frozen(adam, adafactor, frozenset(), "there")
