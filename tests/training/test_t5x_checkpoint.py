"""Checkpoints of T5X begin a run: both layouts, in part, and without running what lies in them."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore
from flax import serialization
from flax.traverse_util import flatten_dict, unflatten_dict

from rt2_jax.training.checkpoints import Checkpoints, restore_params
from rt2_jax.training.execution import execute
from rt2_jax.training.initial_state import find_initial, plan_initial_state
from rt2_jax.training.run import prepare
from rt2_jax.training.t5x_checkpoint import find_t5x_checkpoint, open_weights
from rt2_jax.training.train_state import TrainState

HOSTILE = "import os\nfrom __gin__ import dynamic_registration\nos.abort()\n"


def write_legacy(path, state, large=100):
    """As T5X wrote checkpoints of version 3: large leaves are zarr arrays beside a msgpack file."""
    path.mkdir(parents=True)
    flat = flatten_dict(state, keep_empty_nodes=True)
    for keys, leaf in flat.items():
        if not hasattr(leaf, "shape"):
            continue
        leaf = np.asarray(leaf)
        if leaf.size < large:
            flat[keys] = leaf
            continue
        name = ".".join(keys)
        spec = {
            "driver": "zarr",
            "kvstore": {"driver": "file", "path": f"{path / name}/"},
            "metadata": {
                "shape": list(leaf.shape),
                "chunks": [-(-leaf.shape[0] // 2), *leaf.shape[1:]],
                "dtype": leaf.dtype.str,
                "compressor": {"id": "gzip", "level": 1},
            },
        }
        tensorstore.open(spec, create=True).result().write(leaf).result()
        store = {"driver": "gcs", "bucket": "t5x-dummy-bucket", "path": f"{name}/"}
        flat[keys] = {**spec, "dtype": str(leaf.dtype), "kvstore": store}
    tree = {"version": 3, "optimizer": unflatten_dict(flat)}
    (path / "checkpoint").write_bytes(serialization.msgpack_serialize(tree))
    (path / "config.gin").write_text(HOSTILE)


def write_orbax(path, state):
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path / "state", state)
    (path / "config.gin").write_text(HOSTILE)


@pytest.fixture(scope="module")
def run(prepared):
    return prepared


@pytest.fixture(scope="module")
def state(run):
    """Numbers that no new state has."""
    draw = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: draw.normal(size=leaf.shape).astype(leaf.dtype),
        run.initializer.abstract,
    ).state_dict()


@pytest.fixture(scope="module", params=[write_legacy, write_orbax])
def t5x_run(request, state, tmp_path_factory):
    """A folder with a checkpoint of T5X of step 7."""
    folder = tmp_path_factory.mktemp("t5x")
    request.param(folder / "checkpoint_7", state)
    return folder


@pytest.fixture(scope="module")
def begin(run):
    """The state of a run that begins with a checkpoint."""
    new = run.initializer.init(jax.random.key(0))

    def make(folder, **changes):
        config = dataclasses.replace(run.config, initial_checkpoint=str(folder), **changes)
        plan = plan_initial_state(config, find_initial(config), run.initializer.abstract)
        return plan.restore(new, run.initializer.abstract)

    return make


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), expected)


def test_the_parameters_begin_a_run_and_gin_beside_them_is_not_read(begin, state, t5x_run):
    begun = begin(t5x_run)
    assert_same(begun.params, state["target"])
    assert int(begun.step) == 0
    moments = jax.tree.leaves(begun.state_dict()["state"]["param_states"])
    assert not any(np.any(each) for each in moments)


def test_the_optimizer_comes_along_on_request_and_the_step_does_not(begin, state, t5x_run):
    begun = begin(t5x_run / "checkpoint_7", restore_optimizer=True).state_dict()
    assert_same(begun["target"], state["target"])
    assert_same(begun["state"]["param_states"], state["state"]["param_states"])
    assert int(begun["state"]["step"]) == 0


@pytest.mark.slow
def test_a_whole_run_begins_with_one(run, state, tmp_path):
    write_legacy(tmp_path / "checkpoint_7", state)
    loop = dataclasses.replace(run.config.loop, total_steps=1, save_first=True)
    directory = tmp_path / "run"
    config = dataclasses.replace(
        run.config, model_dir=str(directory), loop=loop, initial_checkpoint=str(tmp_path)
    )
    execute(prepare(config))
    first = restore_params(directory / "checkpoint_0", run.initializer.abstract.params)
    assert_same(first, state["target"])


@pytest.fixture(scope="module")
def partial(state, tmp_path_factory):
    """A checkpoint whose embedding has another name, and that lacks the decoder's last norm."""
    flat = flatten_dict(state["target"], sep="/")
    flat["old/embedding"] = flat.pop("token_embedder/embedding")
    del flat["decoder/decoder_norm/scale"]
    flat["text_head/kernel"] = np.zeros(3, np.float32)
    folder = tmp_path_factory.mktemp("partial") / "checkpoint_1"
    write_legacy(folder, {**state, "target": unflatten_dict(flat, sep="/")})
    return folder


def test_every_weight_without_its_place_is_named_and_nothing_begins(begin, partial):
    with pytest.raises(ValueError, match="not every weight has its place") as refused:
        begin(partial)
    for line in (
        "missing: target/token_embedder/embedding",
        "missing: target/decoder/decoder_norm/scale",
        "not expected: target/old/embedding",
        "not expected: target/text_head/kernel",
        "RunConfig.strict_restore=False",
    ):
        assert line in str(refused.value)


def test_a_partial_checkpoint_is_mapped_and_the_rest_is_new_and_reported(
    begin, state, partial, caplog
):
    names = (("target/token_embedder/embedding", "target/old/embedding"),)
    begun = begin(partial, assignment_map=names, strict_restore=False)
    embedding = begun.params["token_embedder"]["embedding"]
    np.testing.assert_array_equal(embedding, state["target"]["token_embedder"]["embedding"])
    np.testing.assert_array_equal(begun.params["decoder"]["decoder_norm"]["scale"], 1.0)
    assert "missing: target/decoder/decoder_norm/scale" in caplog.text
    assert "not expected: target/text_head/kernel" in caplog.text


def test_parameters_alone_are_read_too(state, tmp_path):
    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "params", state["target"])
    stored = open_weights(tmp_path)
    name = "target/decoder/decoder_norm/scale"
    wanted = jnp.zeros(stored.weights[name].shape)
    read = stored.read(
        {name: jax.ShapeDtypeStruct(wanted.shape, "float32", sharding=wanted.sharding)}
    )
    np.testing.assert_array_equal(read[name], state["target"]["decoder"]["decoder_norm"]["scale"])


def test_an_array_outside_the_checkpoint_is_refused(tmp_path):
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": "../../secret/"}}
    tree = {"version": 3, "optimizer": {"target": {"a": spec}}}
    (tmp_path / "checkpoint").write_bytes(serialization.msgpack_serialize(tree))
    assert find_t5x_checkpoint(tmp_path) == tmp_path
    with pytest.raises(ValueError, match="expected a zarr array in a folder of the checkpoint"):
        open_weights(tmp_path)


def test_one_of_ours_that_is_not_whole_does_not_pass_for_one_of_t5x(tmp_path):
    state = TrainState(jnp.int32(1), {"a": jnp.ones(2)}, {})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, {}, {})
    for name in ("rt2", "fingerprints"):
        shutil.rmtree(tmp_path / "checkpoint_1" / name)
    assert find_t5x_checkpoint(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"\x80\x04no msgpack", b"cos\nabort\n(tR."])
def test_what_is_no_msgpack_is_damaged_and_not_unpickled(tmp_path, content):
    (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(ValueError, match="the checkpoint is damaged"):
        open_weights(tmp_path)
