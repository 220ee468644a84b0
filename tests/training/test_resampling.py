"""A run whose pictures have another size than those of the checkpoint that it begins with."""

import dataclasses

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax.traverse_util import flatten_dict

from rt2_jax.models.position import resample_positions
from rt2_jax.training.checkpoints import find_checkpoint, read_description
from rt2_jax.training.execution import execute
from rt2_jax.training.export import export_params
from rt2_jax.training.loop import LoopConfig
from rt2_jax.training.resampling import restore_resampled, stored_model
from rt2_jax.training.run import prepare

POSITIONS = ("vision", "pos_embedding")


@pytest.fixture
def at_size(run_config, trained):
    """`at_size(height, width, **vision)`: a run that begins with `trained`, which has 8 x 8."""

    def make(*size, initial=trained, **vision):
        loop = LoopConfig(total_steps=1, save_first=True)
        config = run_config(initial_checkpoint=str(initial), loop=loop)
        vision = dataclasses.replace(config.model.vision, image_size=size, **vision)
        return dataclasses.replace(config, model=dataclasses.replace(config.model, vision=vision))

    return make


def target(directory, step):
    with ocp.PyTreeCheckpointer() as checkpointer:
        tree = checkpointer.restore(directory / f"checkpoint_{step}" / "state")["target"]
    return flatten_dict(tree)


def test_a_run_with_larger_pictures_begins_with_resampled_positions_and_says_so(
    at_size, trained, tmp_path, caplog
):
    few = ("(?!decoder/decoder_norm/).*",)  # train, so that the step compiles quickly
    outcome = execute(prepare(dataclasses.replace(at_size(16, 16), frozen=few)))
    assert int(outcome.state.step) == 1
    found, before = target(tmp_path / "run", 0), target(trained, 6)
    table = found.pop(POSITIONS)
    assert table.shape == (16, 16)
    expected = resample_positions(before.pop(POSITIONS), (2, 2), (4, 4))
    np.testing.assert_allclose(table, expected, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, found, before)
    assert "vision/pos_embedding resampled from a grid of 2 x 2 to 4 x 4" in caplog.text


def test_positions_follow_their_places_where_their_number_stays(at_size, trained):
    run = prepare(at_size(4, 16))
    abstract = run.initializer.abstract.params
    params = restore_resampled(run.initial_checkpoint, run.config.model, abstract)
    before = target(trained, 6)[POSITIONS]
    expected = resample_positions(before, (2, 2), (1, 4))
    np.testing.assert_allclose(params["vision"]["pos_embedding"], expected, atol=1e-6)
    assert expected.shape == before.shape and np.abs(expected - before).max() > 1e-3


def test_exported_parameters_are_resampled_too(at_size, trained, tmp_path):
    exported = export_params(trained / "checkpoint_6", tmp_path / "out")
    run = prepare(at_size(16, 8, initial=exported))
    abstract = run.initializer.abstract.params
    params = restore_resampled(run.initial_checkpoint, run.config.model, abstract)
    table, wanted = (tree["vision"]["pos_embedding"] for tree in (params, abstract))
    assert (table.shape, table.sharding) == (wanted.shape, wanted.sharding)


def test_a_checkpoint_from_before_a_field_of_its_model_is_a_beginning_too():
    checkpoint = find_checkpoint("pretrained:rt2_palix_tiny")
    assert "qk_norm" not in read_description(checkpoint)["model"]["vision"]
    assert stored_model(checkpoint).vision.qk_norm is False


def test_other_patches_are_refused_by_name_whatever_the_size(at_size, tmp_path):
    with pytest.raises(ValueError, match="vision/embedding/kernel: found shape"):
        prepare(at_size(16, 16, patch_size=8))
    assert not (tmp_path / "run").exists()
