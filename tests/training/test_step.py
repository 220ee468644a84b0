"""A training step: the same on every mesh, the whole batch in any number of parts, guarded."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen.partitioning import AxisMetadata
from jax.experimental.compilation_cache import compilation_cache

from rt2_jax.models.losses import example_sums
from rt2_jax.training.adafactor import Adafactor
from rt2_jax.training.metrics import SourceRules
from rt2_jax.training.optimizers import AdamW
from rt2_jax.training.partitioning import logical_axis_rules
from rt2_jax.training.schedules import LearningRate
from rt2_jax.training.step import StepConfig, make_train_step
from rt2_jax.training.train_state import train_state_initializer

RULES = SourceRules(("robot", "web"))
RATE = LearningRate(factors="constant", base_learning_rate=0.01)
WHOLE = StepConfig()
MESHES = {
    "data": {"data": 8},
    "fsdp": {"data": 1, "fsdp": 8},
    "tensor": {"data": 1, "tensor": 8},
    "mixed": {"data": 2, "fsdp": 2, "tensor": 2},
    "replicas": {"replica": 2, "data": 1, "fsdp": 2, "tensor": 2},
    "sequence": {"data": 1, "fsdp": 2, "sequence": 2, "tensor": 2},
    "replicated_sequence": {"replica": 2, "data": 1, "sequence": 2, "tensor": 2},
}
SEQUENCE_PARALLEL = ("sequence", "tensor", "replicas", "replicated_sequence")
SHORT = ("mixed", "replicated_sequence")  # together they have every axis, one in microbatches


class Bigrams:
    """A model that compiles in no time: what comes next, given a token and those of the input."""

    def __init__(self, optimizer_def, loss_normalizing_factor=None):
        self.optimizer_def = optimizer_def
        self.loss_normalizing_factor = loss_normalizing_factor

    def get_initial_variables(self, rng, input_shapes, input_types=None):
        axes = {"embedding": ("vocab", "embed"), "kernel": ("embed", "vocab")}
        params = {
            name: jax.random.normal(jax.random.fold_in(rng, i), shape)
            for i, (name, shape) in enumerate({"embedding": (32, 8), "kernel": (8, 32)}.items())
        }
        return {
            "params": params,
            "params_axes": {f"{name}_axes": AxisMetadata(each) for name, each in axes.items()},
        }

    def example_sums(self, params, batch, dropout_rng=None):
        x = params["embedding"][batch["decoder_input_tokens"]]
        x += params["embedding"][batch["encoder_input_tokens"]].mean(1, keepdims=True)
        targets, weights = batch["decoder_target_tokens"], batch["decoder_loss_weights"]
        counts = batch["decoder_accuracy_weights"]
        return example_sums(x @ params["kernel"], targets, weights, 1e-3, accuracy_weights=counts)


def steps(
    model, partitioner, batches, count=2, config=WHOLE, change=lambda batch: batch, rules=RULES
):
    """The state after some steps, from the same beginning, and their metrics."""
    config.check_batch_size(batches.batch_size, partitioner)
    initializer = train_state_initializer(model, partitioner, *batches.shapes_and_types())
    step = make_train_step(model, initializer, partitioner, RATE, rules, config)
    state, metrics = initializer.init(jax.random.key(1)), []
    for _ in range(count):
        batch = partitioner.to_devices(change(next(batches)))
        state, measured = step(state, batch, jax.random.key(2))
        metrics.append(jax.device_get(measured))
    return jax.device_get(state), metrics


def assert_same(found, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), found, expected)


@pytest.fixture(scope="module")
def on_one(tiny):
    return steps(tiny.make_model(), tiny.make_partitioner(), tiny.Batches())


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
def test_a_mesh_of_eight_devices_gives_the_losses_of_one(mesh, on_one, full_check, tiny):
    if not full_check and mesh not in SHORT:
        pytest.skip(f"in the full form only: the axes of this mesh are those of {SHORT}")
    partitioner = tiny.make_partitioner(8, **MESHES[mesh])
    if mesh in SEQUENCE_PARALLEL:
        rules = logical_axis_rules(sequence_parallel=True)
        partitioner = dataclasses.replace(partitioner, rules=rules)
    parts = StepConfig(num_microbatches=2 if mesh == "replicated_sequence" else 1)
    state, metrics = steps(tiny.make_model(), partitioner, tiny.Batches(), config=parts)
    assert_same(metrics, on_one[1], rtol=2e-4, atol=1e-6)
    assert_same(state.params, on_one[0].params, rtol=1e-3, atol=2e-4)


def test_parameters_are_divided_as_the_mesh_says(tiny):
    inputs = tiny.Batches().shapes_and_types()
    partitioner = tiny.make_partitioner(8, data=2, fsdp=2, tensor=2)
    state = train_state_initializer(tiny.make_model(AdamW()), partitioner, *inputs).abstract
    wi = state.params["encoder"]["layers"]["mlp"]["wi_0"]["kernel"]
    assert wi.shape == (16, 2, 16)
    assert wi.sharding.shard_shape(wi.shape) == (8, 2, 8)
    mu = state.param_states[0].mu["encoder"]["layers"]["mlp"]["wi_0"]["kernel"]
    assert mu.sharding == wi.sharding
    assert state.param_states[0].count.sharding.is_fully_replicated


@pytest.mark.slow
def test_a_vision_language_model_accumulates_to_the_whole_batch(on_one, full_check, tiny):
    if not full_check:
        pytest.skip("in the full form only: it does on the mesh 'replicated_sequence'")
    config = StepConfig(num_microbatches=4)
    _, metrics = steps(tiny.make_model(), tiny.make_partitioner(), tiny.Batches(), 2, config)
    assert_same(metrics, on_one[1], rtol=2e-4, atol=1e-6)


@pytest.fixture
def no_stored_programs():
    """What was compiled before is compiled again: what is read back leaves no dump."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # whether to use it is asked once
    yield
    jax.config.update("jax_enable_compilation_cache", before)
    compilation_cache.reset_cache()


def test_each_device_accumulates_its_part_of_the_gradient_alone(tiny, tmp_path, no_stored_programs):
    options = {"xla_dump_to": str(tmp_path), "xla_dump_hlo_pass_re": "spmd-partitioning"}
    config = StepConfig(num_microbatches=4, compiler_options=options)
    partitioner = tiny.make_partitioner(8, data=1, fsdp=8)
    steps(Bigrams(AdamW()), partitioner, tiny.Batches(32), 1, config)
    (text,) = [path.read_text() for path in tmp_path.glob("*jit_step*after_spmd-part*.txt")]
    (loop,) = [line for line in text.splitlines() if " while(" in line]
    assert "f32[1,32]" in loop and "f32[32,1]" in loop, loop  # kernel and embedding
    gathered = {"f32[8,32]": 1, "f32[32,8]": 1}  # the parameters themselves, once
    assert all(loop.count(shape) <= count for shape, count in gathered.items()), loop


def test_an_option_that_the_compiler_does_not_know_is_refused(tiny):
    config = StepConfig(compiler_options={"xla_no_such_option": "1"})
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        steps(Bigrams(AdamW()), tiny.make_partitioner(), tiny.Batches(), 1, config)


@pytest.mark.parametrize(
    "factor",
    [None, 7.0, "NUM_REAL_TARGET_TOKENS", "NUM_TOTAL_TARGET_TOKENS", "AVERAGE_PER_SEQUENCE"],
)
def test_accumulated_microbatches_equal_the_whole_batch(factor, tiny):
    model = Bigrams(AdamW(), factor)
    partitioner = tiny.make_partitioner()
    config = StepConfig(num_microbatches=4)
    whole = steps(model, partitioner, tiny.Batches(32), count=1)
    parts = steps(model, partitioner, tiny.Batches(32), count=1, config=config)
    assert_same(parts[1], whole[1], rtol=1e-5)
    # Adam's first moment after one step is a tenth of the gradient.
    gradients, expected = (result[0].param_states[0].mu for result in (parts, whole))
    assert_same(gradients, expected, rtol=1e-3, atol=1e-7)


def test_the_weights_of_sources_hold_where_every_sequence_counts_the_same(tiny):
    rules = SourceRules(("a", "b"), loss_weights=np.array([1.0, 0.0]))
    model, partitioner = Bigrams(AdamW(), "AVERAGE_PER_SEQUENCE"), tiny.make_partitioner()

    def without_b(batch):
        weights = batch["decoder_loss_weights"] * (batch["source_id"] == 0)[:, None]
        return {**batch, "decoder_loss_weights": weights}

    weighted = steps(model, partitioner, tiny.Batches(), 1, rules=rules)[1][0]
    alone = steps(model, partitioner, tiny.Batches(), 1, change=without_b)[1][0]
    np.testing.assert_allclose(weighted.loss, alone.loss, rtol=1e-6)
    np.testing.assert_allclose(weighted.gradient_norm, alone.gradient_norm, rtol=1e-5)


def test_without_a_factor_the_loss_is_the_weighted_mean_of_the_targets(on_one, tiny):
    sources = on_one[1][0].sources
    np.testing.assert_allclose(
        on_one[1][0].loss, sources.loss.sum() / sources.weight.sum(), rtol=1e-6
    )
    batch = next(tiny.Batches())
    np.testing.assert_allclose(
        sources.weight, [batch["decoder_loss_weights"][i::2].sum() for i in (0, 1)], rtol=1e-6
    )
    assert sources.examples.tolist() == [4, 4]


def test_a_gradient_longer_than_clip_norm_is_cut_to_it(tiny):
    model, config = Bigrams(AdamW()), StepConfig(clip_norm=0.01)
    state, metrics = steps(model, tiny.make_partitioner(), tiny.Batches(), 1, config)
    assert metrics[0].gradient_norm > 0.01
    gradient = [10 * leaf for leaf in jax.tree.leaves(state.param_states[0].mu)]
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in gradient))
    np.testing.assert_allclose(norm, 0.01, rtol=1e-4)


@pytest.mark.parametrize("optimizer", [Adafactor(), AdamW(weight_decay=0.1)])
def test_a_step_that_is_not_finite_changes_nothing_but_the_step(optimizer, tiny):
    model, partitioner, data = Bigrams(optimizer), tiny.make_partitioner(), tiny.Batches()
    initializer = train_state_initializer(model, partitioner, *data.shapes_and_types())
    step = make_train_step(model, initializer, partitioner, RATE, RULES)
    before = jax.device_get(initializer.init(jax.random.key(1)))
    bad = next(data)
    bad["decoder_loss_weights"][0, 0] = np.nan
    after, metrics = step(
        initializer.init(jax.random.key(1)), partitioner.to_devices(bad), jax.random.key(2)
    )
    assert bool(metrics.skipped)
    assert int(after.step) == 1
    assert_same(jax.device_get(after.replace(step=before.step)), before, rtol=0)
    _, metrics = step(after, partitioner.to_devices(next(data)), jax.random.key(2))
    assert not bool(metrics.skipped)


def test_a_batch_without_weighted_targets_has_no_loss_and_changes_nothing_it_should_not(tiny):
    def change(batch):
        return {**batch, "decoder_loss_weights": np.zeros_like(batch["decoder_loss_weights"])}

    _, metrics = steps(Bigrams(AdamW()), tiny.make_partitioner(), tiny.Batches(), 1, change=change)
    assert metrics[0].loss == 0 and not metrics[0].skipped


def test_a_batch_that_cannot_be_divided_is_refused(tiny):
    with pytest.raises(ValueError, match=r"found 24, expected a multiple of 2 microbatches x 8"):
        StepConfig(num_microbatches=2).check_batch_size(24, tiny.make_partitioner(8))


def test_a_parameter_that_the_mesh_cannot_divide_is_refused_by_name(tiny):
    model = tiny.make_model()
    config = model.module.config
    text = dataclasses.replace(config.text, mlp_dim=12)
    model = type(model)(dataclasses.replace(config, text=text), model.optimizer_def)
    with pytest.raises(ValueError, match=r"decoder/layers/mlp/wi_0/kernel: its axis 'mlp' of 12"):
        train_state_initializer(
            model, tiny.make_partitioner(8, data=1, tensor=8), *tiny.Batches().shapes_and_types()
        )


def test_a_logical_axis_without_a_rule_is_refused_by_name(tiny):
    partitioner = dataclasses.replace(tiny.make_partitioner(), rules=(("batch", "data"),))
    with pytest.raises(KeyError, match=r"no rule for the logical axes \['embed'"):
        train_state_initializer(tiny.make_model(), partitioner, *tiny.Batches().shapes_and_types())


def test_a_model_without_an_optimizer_is_refused(tiny):
    model = tiny.make_model()
    model.optimizer_def = None
    with pytest.raises(TypeError, match="optimizer_def: found None, expected an optimizer"):
        train_state_initializer(model, tiny.make_partitioner(), *tiny.Batches().shapes_and_types())


def test_the_state_dict_has_the_layout_of_t5x(tiny):
    inputs = tiny.Batches().shapes_and_types()
    initializer = train_state_initializer(tiny.make_model(), tiny.make_partitioner(), *inputs)
    saved = initializer.abstract.state_dict()
    assert set(saved) == {"target", "state"}
    assert set(saved["state"]) == {"step", "param_states"}
    kernel = saved["state"]["param_states"]["encoder"]["layers"]["mlp"]["wi_0"]["kernel"]
    assert {name: leaf.shape for name, leaf in kernel.items()} == {
        "v_row": (16, 2),
        "v_col": (2, 16),
        "v": (1,),
        "m": (1,),
    }
    assert saved["state"]["step"].dtype == jnp.int32
    restored = initializer.abstract.restore_state(saved)
    assert jax.tree.structure(restored) == jax.tree.structure(initializer.abstract)


def test_a_source_of_weight_zero_teaches_nothing_and_one_of_weight_two_counts_twice(tiny):
    def change(rows):
        def keep(batch):
            weights = batch["decoder_loss_weights"] * rows[batch["source_id"]][:, None]
            return {**batch, "decoder_loss_weights": weights.astype(np.float32)}

        return keep

    partitioner = tiny.make_partitioner()
    cases = (
        (np.array([0.0, 1.0]), WHOLE),
        (np.array([2.0, 1.0]), dataclasses.replace(WHOLE, num_microbatches=4)),
    )
    for weights, config in cases:
        model, rules = Bigrams(AdamW()), SourceRules(RULES.names, weights)
        found = steps(model, partitioner, tiny.Batches(), 2, config, rules=rules)
        expected = steps(model, partitioner, tiny.Batches(), 2, config, change(weights))
        assert_same(found[0].params, expected[0].params, rtol=1e-5, atol=1e-6)


def test_the_accuracy_of_a_source_is_that_of_the_positions_that_count(tiny):
    length = next(tiny.Batches())["decoder_target_tokens"].shape[1]
    positions = np.ones((2, length), bool)
    positions[0, 0] = False

    def everywhere_but_first(batch):
        weights = batch["decoder_loss_weights"].copy()
        weights[batch["source_id"] == 0, 0] = 0
        return {**batch, "decoder_loss_weights": weights}

    _, found = steps(
        Bigrams(AdamW()),
        tiny.make_partitioner(),
        tiny.Batches(),
        1,
        rules=SourceRules(RULES.names, accuracy_positions=positions),
    )
    _, expected = steps(
        Bigrams(AdamW()), tiny.make_partitioner(), tiny.Batches(), 1, change=everywhere_but_first
    )
    sums, expected_sums = found[0].sources, expected[0].sources
    np.testing.assert_allclose(sums.correct, expected_sums.correct)
    np.testing.assert_allclose(sums.accuracy_weight, expected_sums.accuracy_weight)
    assert sums.weight[0] > sums.accuracy_weight[0]


@pytest.mark.parametrize(
    "rules, message",
    [
        ({"loss_weights": np.ones(3)}, "loss_weights: found 3 for 2 sources: robot, web"),
        ({"accuracy_positions": np.ones((1, 4), bool)}, "accuracy_positions: found 1 for 2"),
        ({"loss_weights": np.array([1.0, -1.0])}, "expected finite, from 0"),
    ],
)
def test_rules_that_do_not_fit_the_sources_are_refused(rules, message):
    with pytest.raises(ValueError, match=message):
        SourceRules(("robot", "web"), **rules)
