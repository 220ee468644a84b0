"""Checkpoints: what was saved comes back on any mesh, and nothing else passes for one."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from rt2_jax.training.checkpoints import (
    Checkpoints,
    checkpoint_path,
    latest_checkpoint,
    read_description,
    restore_params,
)
from rt2_jax.training.export import export_params
from rt2_jax.training.train_state import TrainState

DATASET, DESCRIPTION = {"seed": 3, "step": 5}, {"model": {"class": "Tiny"}, "statistics": {}}


@pytest.fixture
def state(tiny):
    draw = np.random.default_rng(0)
    params = {"encoder": {"kernel": jnp.asarray(draw.normal(size=(64, 32)), jnp.float32)}}
    moments = tiny.Adafactor().transformation({"encoder": {"kernel": ("embed", "mlp")}})
    return TrainState(jnp.int32(5), params, moments.init(params))


@pytest.fixture
def saved(state, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, DATASET, DESCRIPTION)
    return tmp_path


def abstract(state, sharding=None):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding or leaf.sharding
        ),
        state,
    )


def restore(directory, expected, step=None):
    with Checkpoints(directory) as checkpoints:
        return checkpoints.restore(expected, step)


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_what_was_saved_comes_back(state, saved):
    found, dataset = restore(saved, abstract(state))
    assert_same(found, state)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    assert dataset == DATASET
    assert read_description(saved / "checkpoint_5") == DESCRIPTION


def test_a_checkpoint_comes_back_on_another_mesh(tiny, state, saved):
    mesh = tiny.make_partitioner(8, fsdp=8).mesh
    expected = abstract(state)
    sharding = NamedSharding(mesh, PartitionSpec("fsdp"))
    kernel = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=sharding)
    everywhere = abstract(expected, NamedSharding(mesh, PartitionSpec()))
    found, _ = restore(
        saved, dataclasses.replace(everywhere, params={"encoder": {"kernel": kernel}})
    )
    assert_same(found, state)
    assert found.params["encoder"]["kernel"].sharding == sharding


def test_memory_may_be_used_again_as_soon_as_save_returns(tmp_path):
    weights = jnp.arange(4_000_000, dtype=jnp.float32)
    state = TrainState(jnp.int32(1), {"w": weights}, {"w": {"v": jnp.zeros(1)}})
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    expected = abstract(state)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, DATASET, DESCRIPTION)
        jax.block_until_ready(overwrite(overwrite(state)))
        checkpoints.wait()
        found, _ = checkpoints.restore(expected)
    np.testing.assert_array_equal(found.params["w"], np.arange(4_000_000, dtype=np.float32))


def test_the_layout_on_disk_is_that_of_t5x(saved):
    folder = saved / "checkpoint_5"
    assert {"state", "dataset", "rt2"} <= {each.name for each in folder.iterdir()}
    names = json.loads((folder / "state" / "_METADATA").read_text())["tree_metadata"]
    assert str(("target", "encoder", "kernel")) in names
    assert str(("state", "param_states", "encoder", "kernel", "v_row")) in names
    assert str(("state", "step")) in names


def test_parameters_can_be_taken_without_the_optimizer(state, saved):
    found = restore_params(saved / "checkpoint_5", abstract(state.params))
    assert_same(found, state.params)


def test_the_latest_are_kept_and_those_of_the_period(state, tmp_path):
    with Checkpoints(tmp_path, keep=2, keep_period=4) as checkpoints:
        for step in range(1, 8):
            checkpoints.save(state.replace(step=jnp.int32(step)), DATASET, DESCRIPTION)
        checkpoints.wait()
        assert checkpoints.latest_step == 7
    assert {each.name for each in tmp_path.iterdir()} == {f"checkpoint_{i}" for i in (4, 6, 7)}


def test_every_missing_unexpected_or_mismatched_weight_is_named(state, saved):
    expected = abstract(state)
    other = {
        "encoder": {"kernel": jax.ShapeDtypeStruct((64, 33), jnp.float32)},
        "vision": {"bias": jax.ShapeDtypeStruct((3,), jnp.float32)},
    }
    with pytest.raises(ValueError, match="holds other weights than the model") as error:
        restore(saved, dataclasses.replace(expected, params=other, param_states={}))
    lines = str(error.value).splitlines()
    assert "  missing: target/vision/bias" in lines
    assert "  target/encoder/kernel: found shape (64, 32), expected (64, 33)" in lines
    assert "  not expected: state/param_states/encoder/kernel/v" in lines
    assert len(lines) == 1 + 2 + 4


def test_half_written_checkpoints_are_not_seen_and_are_removed(state, saved):
    unfinished = saved / "checkpoint_9.orbax-checkpoint-tmp"
    shutil.copytree(saved / "checkpoint_5", unfinished)
    (unfinished / "commit_success.txt").unlink(missing_ok=True)
    with Checkpoints(saved) as checkpoints:
        assert checkpoints.latest_step == 5
        assert_same(checkpoints.restore(abstract(state))[0], state)
        # Removed in the background; the next save waits for it.
        checkpoints.save(state.replace(step=jnp.int32(7)), DATASET, DESCRIPTION)
    assert not unfinished.exists()


@pytest.mark.parametrize("item", ["state", "rt2"])
def test_a_checkpoint_without_an_item_is_refused(state, saved, item):
    shutil.rmtree(saved / "checkpoint_5" / item)
    with pytest.raises(FileNotFoundError, match=f"checkpoint_5: no whole checkpoint: {item} miss"):
        restore(saved, abstract(state), step=5)


def test_a_directory_that_is_no_checkpoint_is_refused_and_left_alone(tmp_path, state):
    (tmp_path / "notes.txt").write_text("mine")
    for read in (checkpoint_path, read_description, lambda path: restore_params(path, {})):
        with pytest.raises(FileNotFoundError, match="no whole checkpoint: state and rt2 missing"):
            read(tmp_path)
    with pytest.raises(FileNotFoundError, match="checkpoint_7: no whole checkpoint"):
        restore(tmp_path, abstract(state), step=7)
    with pytest.raises(FileNotFoundError, match="no checkpoints"):
        restore(tmp_path, abstract(state))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_every_file_of_the_weights_that_is_cut_short_is_noticed(state, saved, tmp_path_factory):
    folder = saved / "checkpoint_5" / "state"
    needed = [
        file.relative_to(saved)
        for file in folder.rglob("*")
        if file.name == "_METADATA" or file.name == "manifest.ocdbt" or file.parent.name == "d"
    ]
    assert len(needed) > 3
    refused = set()
    for name in needed:
        copy = tmp_path_factory.mktemp("copy")
        shutil.copytree(saved, copy, dirs_exist_ok=True)
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[: len(content) // 2])
        try:
            assert_same(restore(copy, abstract(state))[0], state)
        except ValueError as error:
            assert "checkpoint_5: the checkpoint is damaged" in str(error)
            assert "remove it to go on with an earlier one" in str(error)
            refused.add(name.name)
    assert {"_METADATA", "manifest.ocdbt"} <= refused
    largest = max(needed, key=lambda name: (saved / name).stat().st_size)
    assert largest.name in refused


@pytest.mark.parametrize("item", ["rt2", "dataset"])
def test_a_damaged_json_item_is_refused(state, saved, item):
    (saved / "checkpoint_5" / item / "metadata").write_text('{"seed":')
    with pytest.raises(ValueError, match="checkpoint_5: the checkpoint is damaged"):
        if item == "rt2":
            read_description(saved / "checkpoint_5")
        else:
            restore(saved, abstract(state))


def files(directory):
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
def test_what_is_exported_holds_the_parameters_and_the_description_alone(
    state, saved, tmp_path_factory, dtype
):
    out = tmp_path_factory.mktemp("out")
    exported = export_params(saved / "checkpoint_5", out, dtype)
    for path in exported.rglob("*"):
        assert path.is_dir() or str(out).encode() not in path.read_bytes()
    assert exported == out / "checkpoint_5" and [each.name for each in out.iterdir()] == [
        "checkpoint_5"
    ]
    assert {each.name for each in exported.iterdir() if each.is_dir()} == {"params", "rt2"}
    assert read_description(exported) == DESCRIPTION
    rounded = jax.tree.map(lambda leaf: leaf.astype(dtype or leaf.dtype), state.params)
    stored = export_params(exported, out / "again")
    for path in (exported, stored):
        found = restore_params(path, abstract(rounded))
        assert_same(found, rounded)
        assert found["encoder"]["kernel"].dtype == rounded["encoder"]["kernel"].dtype
    # To go on training from: float32, with what the file has left of it.
    found = restore_params(exported, abstract(state.params))
    assert found["encoder"]["kernel"].dtype == "float32"
    assert_same(found, jax.tree.map(lambda leaf: leaf.astype("float32"), rounded))


def test_what_a_mesh_saved_is_exported_whole(tiny, state, tmp_path):
    mesh = tiny.make_partitioner(8, fsdp=4, tensor=2).mesh
    divided = NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))
    params = jax.device_put(state.params, divided)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state.replace(params=params), DATASET, DESCRIPTION)
    exported = export_params(tmp_path / "checkpoint_5", tmp_path / "out")
    assert_same(restore_params(exported, abstract(state.params)), state.params)
    again = restore_params(exported, abstract(state.params, divided))
    assert again["encoder"]["kernel"].sharding == divided
    assert_same(again, state.params)


def test_an_export_overwrites_nothing(saved, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    export_params(saved / "checkpoint_5", out)
    before = files(out)
    with pytest.raises(FileExistsError, match="checkpoint_5 exists already; nothing was written"):
        export_params(saved / "checkpoint_5", out, "bfloat16")
    assert files(out) == before
    with pytest.raises(FileExistsError):
        export_params(saved / "checkpoint_5", saved)


@pytest.mark.parametrize("item", ["state", "rt2"])
def test_an_export_of_a_checkpoint_without_an_item_writes_nothing(saved, tmp_path_factory, item):
    out = tmp_path_factory.mktemp("out")
    shutil.rmtree(saved / "checkpoint_5" / item)
    with pytest.raises(FileNotFoundError, match=f"no whole checkpoint: {item} missing"):
        export_params(saved / "checkpoint_5", out)
    assert list(out.iterdir()) == []


def test_an_export_of_a_damaged_checkpoint_writes_nothing(saved, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    metadata = saved / "checkpoint_5" / "state" / "_METADATA"
    metadata.write_bytes(metadata.read_bytes()[:20])
    with pytest.raises(ValueError, match="checkpoint_5: the checkpoint is damaged"):
        export_params(saved / "checkpoint_5", out)
    assert list(out.iterdir()) == []


def test_the_latest_checkpoint_is_found_from_the_run_or_from_itself(state, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (9, 10):
            checkpoints.save(state.replace(step=jnp.int32(step)), DATASET, DESCRIPTION)
    shutil.copytree(tmp_path / "checkpoint_10", tmp_path / "checkpoint_11.orbax-checkpoint-tmp")
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint_10"
    assert latest_checkpoint(str(tmp_path / "checkpoint_9")) == tmp_path / "checkpoint_9"
    exported = export_params(tmp_path / "checkpoint_9", tmp_path / "exported")
    assert latest_checkpoint(tmp_path / "exported") == exported


def test_a_directory_that_is_neither_run_nor_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint and no run: it holds no whole"):
        latest_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: no checkpoint and no run: it is no dir"):
        latest_checkpoint(tmp_path / "nowhere")
    (tmp_path / "checkpoint_3").mkdir()
    with pytest.raises(FileNotFoundError, match="no whole checkpoint: state and rt2 missing"):
        latest_checkpoint(tmp_path / "checkpoint_3")
