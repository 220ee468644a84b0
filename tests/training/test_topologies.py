"""The presets of `gin_configs/topologies`: each fits its model on all the sizes that it names."""

import dataclasses
import functools
import re

import jax
import pytest
from jax.sharding import AbstractMesh

from rt2_jax.data.model_inputs import InputSpec
from rt2_jax.models.make_model import make_model
from rt2_jax.training.adafactor import Adafactor
from rt2_jax.training.gin_files import load_run_config
from rt2_jax.training.gin_statements import SHIPPED
from rt2_jax.training.mesh import MESH_AXES
from rt2_jax.training.partitioning import Partitioner, logical_axes, logical_axis_rules

PRESETS = sorted(path.relative_to(SHIPPED) for path in SHIPPED.glob("topologies/*/*.gin"))
MODELS = ("rt2_paligemma_3b", "rt2_palix_55b", "rt2_palix_5b", "rt2_palme_12b")
FAMILIES = ("cpu", "gpu", "tpu7x", "v4", "v5e", "v5p", "v6e")
VALUES = {
    "MODEL_DIR": "'run'",
    "MIXTURE_OR_TASK_NAME": "'mixture'",
    "TRAIN_STEPS": "1",
    "TASK_FEATURE_LENGTHS": "{'inputs': 64, 'targets': 32}",
}


def said(preset):
    """The first line: the smallest and the largest mesh, and the global batch size."""
    first = (SHIPPED / preset).read_text().splitlines()[0]
    found = re.search(r": (\d+)(?: to (\d+))? \w+ at a global batch of (\d+)\.", first)
    assert found, first
    smallest, largest, batch_size = found.groups()
    return int(smallest), int(largest or smallest), int(batch_size)


@functools.cache
def load(preset, batch_size):
    bindings = [f"{name} = {value}" for name, value in VALUES.items()]
    files = [f"models/{preset.name}", "runs/base.gin", str(preset)]
    return load_run_config(files, [*bindings, f"BATCH_SIZE = {batch_size}"])[0]


@functools.cache
def parameters(config):
    """Shapes and logical axes."""
    spec = InputSpec(
        config.image_slots,
        config.image_size,
        64,
        32,
        placeholders_per_image=config.placeholders_per_image,
    )
    model = make_model(config, Adafactor())
    variables = jax.eval_shape(
        functools.partial(model.get_initial_variables, input_shapes=spec.batch_shapes(1)),
        jax.random.key(0),
    )
    return variables["params"], logical_axes(variables["params_axes"])


def test_every_model_has_a_preset_on_every_family_of_chips():
    assert {(path.parent.name, path.stem) for path in PRESETS} == {
        (family, model) for family in FAMILIES for model in MODELS
    }


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_preset_divides_all_parameters_and_the_batch_of_its_model(preset):
    count, largest, batch_size = said(preset)
    config = load(preset, batch_size)
    rules = logical_axis_rules(config.logical_axis_rules, config.sequence_parallel)
    params, axes = parameters(dataclasses.replace(config.model, remat="none"))
    while count <= largest:
        sizes = dataclasses.asdict(config.mesh.resolve(count))
        mesh = AbstractMesh(tuple(sizes[name] for name in MESH_AXES), MESH_AXES)
        partitioner = Partitioner(mesh, rules)
        partitioner.parameter_shardings(params, axes)
        config.step.check_batch_size(batch_size, partitioner)
        count *= 2
    assert count == 2 * largest
