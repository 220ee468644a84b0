"""LoRA: the base exactly at first, adapters alone trained and saved, merged into plain weights."""

import dataclasses
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
from rt2_jax.training.adapters import Adapters, params_hash, restore_merged
from rt2_jax.training.checkpoints import Checkpoints, restore_params
from rt2_jax.training.ema import EMA
from rt2_jax.training.execution import execute
from rt2_jax.training.export import export_adapters, export_params
from rt2_jax.training.lora import ADAPTERS, BASE, AdaptedModel, Layout, LoRA, merge
from rt2_jax.training.metrics import SourceRules
from rt2_jax.training.optax_schedules import OptaxSchedule
from rt2_jax.training.optimizers import AdamW
from rt2_jax.training.run import prepare
from rt2_jax.training.step import make_train_step
from rt2_jax.training.train_state import train_state_initializer

LORA = LoRA((".*/kernel",), rank=2, alpha=6.0)
AXES = {
    "query": {"kernel": ("embed", "layers", "heads", "kv")},
    "out": {"kernel": ("layers", "heads", "kv", "embed")},
    "norm": {"scale": ("embed", "layers")},
    "logits": {"kernel": ("embed", "vocab")},
}
SIZES = {"embed": 8, "layers": 2, "heads": 4, "kv": 2, "vocab": 8}
LAYOUTS = {
    "query/kernel": Layout(layers=1, inputs=1),
    "out/kernel": Layout(layers=0, inputs=2),
    "logits/kernel": Layout(layers=-1, inputs=1),
}


class Attention:
    """A model with every layout of a kernel: layers first, second, none; heads as two axes."""

    loss_normalizing_factor = None

    def __init__(self, optimizer_def):
        self.optimizer_def = optimizer_def

    def get_initial_variables(self, rng, input_shapes, input_types=None):
        params, axes = {}, {}
        for i, (name, ((kind, names),)) in enumerate((n, a.items()) for n, a in AXES.items()):
            shape = [SIZES[axis] for axis in names]
            params[name] = {kind: jax.random.normal(jax.random.fold_in(rng, i), shape)}
            axes[name] = {f"{kind}_axes": AxisMetadata(names)}
        return {"params": params, "params_axes": axes}

    def example_sums(self, params, batch, dropout_rng=None):
        x = jax.nn.one_hot(batch["encoder_input_tokens"] % 8, 8).mean(1)
        for layer in range(2):
            heads = jnp.einsum("be,ehk->bhk", x, params["query"]["kernel"][:, layer])
            x += jnp.einsum("bhk,hke->be", jnp.tanh(heads), params["out"]["kernel"][layer])
            x *= params["norm"]["scale"][:, layer]
        logits = jax.nn.log_softmax(x @ params["logits"]["kernel"])
        weight = batch["decoder_loss_weights"].sum(1)
        target = batch["decoder_target_tokens"][:, 0] % 8
        loss = -weight * jnp.take_along_axis(logits, target[:, None], 1)[:, 0]
        return ExampleSums(loss, 0 * weight, 0 * weight, weight, weight)


class Training:
    """`Attention` with adapters, step by step."""

    def __init__(self, tiny, devices=1, **mesh):
        self.partitioner, self.data = tiny.make_partitioner(devices, **mesh), tiny.Batches()
        inputs = self.data.shapes_and_types()
        self.model = AdaptedModel(Attention(AdamW(weight_decay=0.1)), LORA, *inputs)
        self.initializer = train_state_initializer(
            self.model, self.partitioner, *inputs, frozen=("base/.*",), ema=EMA(0.5)
        )
        rate = OptaxSchedule("constant", {"value": 0.05})
        rules = SourceRules(tiny.SOURCES)
        self.step = make_train_step(self.model, self.initializer, self.partitioner, rate, rules)

    def run(self, count):
        state, losses = self.initializer.init(jax.random.key(0)), []
        for _ in range(count):
            batch = self.partitioner.to_devices(next(self.data))
            state, metrics = self.step(state, batch, jax.random.key(1))
            losses.append(float(metrics.loss))
        return state, losses


def assert_same(found, expected, **tolerance):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **tolerance),
        jax.device_get(found),
        jax.device_get(expected),
    )


@pytest.fixture(scope="module")
def stepped(tiny):
    """Four steps on one device: the training, the state, the losses."""
    training = Training(tiny)
    return training, *training.run(4)


def whole(params):
    return merge(params[BASE], params[ADAPTERS], LAYOUTS, LORA.scale)


def test_a_product_lies_in_every_layout_as_the_kernel_does():
    draw = np.random.default_rng(0)
    shapes = {
        "query": ((2, 8, 2), (2, 2, 4, 2)),
        "out": ((2, 4, 2, 2), (2, 2, 8)),
        "logits": ((8, 2), (2, 8)),
    }
    base = {
        name: {kind: draw.normal(size=[SIZES[axis] for axis in names]).astype(np.float32)}
        for name, entry in AXES.items()
        for kind, names in entry.items()
    }
    adapters = {
        name: {"kernel": {"lora_a": draw.normal(size=a), "lora_b": draw.normal(size=b)}}
        for name, (a, b) in shapes.items()
    }
    pairs = {name: each["kernel"] for name, each in adapters.items()}
    found = jax.device_get(merge(base, adapters, LAYOUTS, 3.0))
    for layer in range(2):
        a, b = pairs["query"]["lora_a"][layer], pairs["query"]["lora_b"][layer]
        expected = base["query"]["kernel"][:, layer] + 3 * (a @ b.reshape(2, 8)).reshape(8, 4, 2)
        np.testing.assert_allclose(found["query"]["kernel"][:, layer], expected, rtol=1e-4)
        a, b = pairs["out"]["lora_a"][layer], pairs["out"]["lora_b"][layer]
        expected = base["out"]["kernel"][layer] + 3 * (a.reshape(8, 2) @ b).reshape(4, 2, 8)
        np.testing.assert_allclose(found["out"]["kernel"][layer], expected, rtol=1e-4, atol=1e-5)
    expected = base["logits"]["kernel"] + 3 * pairs["logits"]["lora_a"] @ pairs["logits"]["lora_b"]
    np.testing.assert_allclose(found["logits"]["kernel"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["norm"]["scale"], base["norm"]["scale"])


def test_the_kernels_are_those_that_a_pattern_matches_and_no_scale_is_one():
    assert LORA.layouts(AXES) == LAYOUTS
    assert LoRA(("query/.*", ".*")).layouts(AXES) == LAYOUTS
    assert list(LoRA(("out/kernel",)).layouts(AXES)) == ["out/kernel"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patterns": ()}, r"patterns: found \(\)"),
        ({"patterns": ("(",)}, "is no regular expression"),
        ({"patterns": ("outt/kernel",)}, "matches no parameter as a whole; near: out/kernel"),
        ({"patterns": ("norm/.*",)}, "matches norm/scale, which have one axis"),
        ({"rank": 0}, "rank: found 0"),
        ({"alpha": -1.0}, "alpha: found -1.0"),
        ({"name": "../x"}, "name: found '../x'"),
    ],
)
def test_adapters_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=rf"^LoRA.*{message}"):
        dataclasses.replace(LORA, **fields).layouts(AXES)


def test_at_first_the_model_is_the_base_exactly(stepped, tiny):
    training, _, _ = stepped
    params = training.initializer.init(jax.random.key(0)).params
    jax.tree.map(np.testing.assert_array_equal, whole(params), params[BASE])
    batch = next(tiny.Batches())
    adapted = training.model.example_sums(params, batch)
    plain = Attention(None).example_sums(params[BASE], batch)
    np.testing.assert_array_equal(adapted.cross_entropy, plain.cross_entropy)


def test_adapters_alone_train_and_have_optimizer_state(stepped):
    training, state, losses = stepped
    before = training.initializer.init(jax.random.key(0)).params
    jax.tree.map(np.testing.assert_array_equal, state.params[BASE], before[BASE])
    assert losses[-1] < losses[0] - 0.01
    for name, leaf in flatten_dict(state.params[ADAPTERS], sep="/").items():
        assert (leaf != flatten_dict(before[ADAPTERS], sep="/")[name]).any(), name
    held = flatten_dict(state.state_dict()["state"]["param_states"], sep="/")
    assert held and not [name for name in held if "base" in name]
    assert set(state.ema) == {ADAPTERS}


def test_a_mesh_of_eight_devices_trains_the_adapters_of_one(stepped, tiny):
    mixed, one = Training(tiny, 8, data=2, fsdp=2, tensor=2), stepped[0]
    one.data = tiny.Batches()
    a = mixed.initializer.abstract.params[ADAPTERS]["query"]["kernel"]["lora_a"]
    assert a.sharding.shard_shape(a.shape) == (2, 4, 2)
    b = mixed.initializer.abstract.params[ADAPTERS]["query"]["kernel"]["lora_b"]
    assert b.sharding.shard_shape(b.shape) == (2, 2, 2, 2)
    (found, losses), (expected, same) = mixed.run(2), one.run(2)
    np.testing.assert_allclose(losses, same, rtol=1e-5)
    assert_same(found.params, expected.params, rtol=1e-4, atol=1e-5)


def test_adafactor_does_not_factor_adapters(tiny):
    inputs = tiny.Batches().shapes_and_types()
    initializer = train_state_initializer(
        AdaptedModel(Attention(Adafactor()), LORA, *inputs),
        tiny.make_partitioner(),
        *inputs,
        frozen=("base/.*",),
    )
    moments = initializer.abstract.param_states[ADAPTERS]["out"]["kernel"]["lora_a"]
    assert (moments.v.shape, moments.v_row.shape, moments.v_col.shape) == ((2, 4, 2, 2), (1,), (1,))


@pytest.fixture(scope="module")
def saved(stepped, tmp_path_factory):
    """The base's checkpoint, and that of the adapters, as a run writes them."""
    directory = tmp_path_factory.mktemp("lora")
    training, state, _ = stepped
    base, lora = directory / "base" / "checkpoint_0", directory / "lora" / "checkpoint_4"
    whole_state = dataclasses.replace(
        state, step=jnp.int32(0), params=state.params[BASE], param_states={}, ema=None
    )
    hashed = params_hash(state.params[BASE])
    described = Adapters(LORA, training.model.layouts, str(base), hashed)
    for path, each, description in (
        (base, whole_state, {"model": "tiny"}),
        (lora, state, {"model": "tiny", "adapters": described.to_json()}),
    ):
        with Checkpoints(path.parent) as checkpoints:
            checkpoints.save(each, {}, description)
            checkpoints.wait()
    return base, lora


def test_a_checkpoint_has_the_adapters_alone_and_gives_them_back_exactly(stepped, saved):
    training, state, _ = stepped
    with Checkpoints(saved[1].parent) as checkpoints:
        restored, _ = checkpoints.restore(training.initializer.abstract)
    assert_same(restored.params[ADAPTERS], state.params[ADAPTERS], rtol=0)
    assert_same((restored.param_states, restored.ema), (state.param_states, state.ema), rtol=0)
    leaves = jax.tree.leaves(restored.params[BASE])
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)  # it was not there


def test_adapters_are_merged_into_their_base_when_they_are_read_or_exported(
    stepped, saved, tmp_path
):
    training, state, _ = stepped
    abstract = training.initializer.abstract.params[BASE]
    expected = whole(state.params)
    averaged = whole({**state.params, **state.ema})
    assert_same(restore_merged(saved[1], abstract), expected, rtol=1e-6)
    assert_same(restore_merged(saved[1], abstract, "ema"), averaged, rtol=1e-6)
    exported = export_params(saved[1], tmp_path / "merged")
    assert_same(restore_params(exported, abstract), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="has all its parameters, so it needs no base"):
        restore_merged(exported, abstract, base=saved[0])
    alone = export_adapters(saved[1], tmp_path / "alone")
    assert sorted(path.name for path in alone.iterdir() if path.is_dir()) == ["adapters", "rt2"]
    assert_same(restore_merged(alone, abstract), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="has no adapters"):
        export_adapters(saved[0], tmp_path)
    with pytest.raises(ValueError, match=r"has adapters alone; merge .* first: rt2 convert"):
        restore_params(saved[1], abstract)


def test_another_base_is_refused_and_one_that_has_moved_is_found(stepped, saved, tmp_path):
    training, state, _ = stepped
    abstract = training.initializer.abstract.params[BASE]
    moved = shutil.copytree(saved[0], tmp_path / "moved" / "checkpoint_0")
    lora = shutil.copytree(saved[1], tmp_path / "lora" / "checkpoint_4")
    described = json.loads((lora / "rt2" / "metadata").read_text())
    described["adapters"]["base"] = str(tmp_path / "gone")
    (lora / "rt2" / "metadata").write_text(json.dumps(described))
    with pytest.raises(FileNotFoundError, match="has adapters alone, and their base is not there"):
        restore_merged(lora, abstract)
    assert_same(restore_merged(lora, abstract, base=moved), whole(state.params), rtol=1e-6)
    small = export_params(moved, tmp_path / "small", "bfloat16")
    restore_merged(lora, abstract, base=small)  # rounded, it is the same base
    described["adapters"]["base_hash"] = "0" * 64
    (lora / "rt2" / "metadata").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=r"were trained on .*gone, whose .* another base"):
        restore_merged(lora, abstract, base=moved)


def test_a_run_with_adapters_needs_a_base_and_nothing_frozen(run_config):
    with pytest.raises(ValueError, match="RunConfig.lora: found adapters and no base"):
        run_config(lora=LORA)
    with pytest.raises(ValueError, match="RunConfig.frozen: found .* with RunConfig.lora"):
        run_config(lora=LORA, initial_checkpoint="base", frozen=("vision/.*",))
    with pytest.raises(ValueError, match="RunConfig.ordinal_action_tokens: found True with"):
        run_config(lora=LORA, initial_checkpoint="base", ordinal_action_tokens=True)


@pytest.mark.slow
def test_a_run_trains_adapters_of_a_checkpoint_goes_on_exactly_and_answers_merged(
    run_config, trained, tmp_path
):
    from rt2_jax.cli.main import main
    from rt2_jax.inference import PolicyEngine
    from rt2_jax.training.checkpoints import read_description

    shutil.copytree(trained, tmp_path / "base")
    config = run_config(
        lora=LoRA((".*attention.*", "token_embedder/.*"), rank=2),
        initial_checkpoint=str(tmp_path / "base"),
        ema=EMA(0.9),
        optimizer=Adafactor(),
    )
    execute(prepare(config))
    directory = tmp_path / "run"
    first = (directory / "metrics.jsonl").read_text().splitlines()
    sizes = [
        sum(file.stat().st_size for file in (each / "checkpoint_6" / "state").rglob("*"))
        for each in (tmp_path / "base", directory)
    ]
    assert sizes[1] < sizes[0] / 4
    shutil.rmtree(directory / "checkpoint_6")
    moved = shutil.move(tmp_path / "base", tmp_path / "moved")
    config = dataclasses.replace(config, initial_checkpoint=str(moved))
    execute(prepare(config))
    again = (directory / "metrics.jsonl").read_text().splitlines()
    losses = [[json.loads(line)["loss"] for line in each] for each in (first, again)]
    assert losses[0] == losses[1]
    described = read_description(directory / "checkpoint_6")["adapters"]
    assert described["base"].startswith(str(moved))
    assert main(["convert", str(directory), str(tmp_path / "merged")]) == 0
    merged = tmp_path / "merged" / "checkpoint_6"
    out = str(tmp_path / "out")
    assert main(["convert", str(directory), out, "--adapters", "--dtype=bfloat16"]) == 2
    assert main(["convert", str(directory), out, "--base", str(moved / "checkpoint_3")]) == 2
    assert main(["convert", str(directory), out, "--adapters", "--ema"]) == 0
    engines = [PolicyEngine.from_checkpoint(each, (1,)) for each in (directory, merged)]
    assert engines[0].metadata["weights"] == engines[1].metadata["weights"]
    averaged = PolicyEngine.from_checkpoint(directory, (1,), "ema")
    assert averaged.metadata["weights"] != engines[0].metadata["weights"]
    other = dataclasses.replace(config, initial_checkpoint=str(moved / "checkpoint_3"))
    with pytest.raises(ValueError, match=r"(?s)another run .*adapters.base_hash"):
        execute(prepare(other))
