"""Compiles a training step for TPUs that are not here: python tpu_program.py TOPOLOGY; prints JSON.

A process of its own: the compiler can end it.
"""

import dataclasses
import json
import os
import re
import sys

os.environ.update(
    JAX_PLATFORMS="cpu",
    TPU_SKIP_MDS_QUERY="1",
    ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    JAX_OPTIMIZATION_LEVEL="O1",
)

import jax  # noqa: E402
from jax.experimental import topologies  # noqa: E402

from rt2_jax.data.model_inputs import InputSpec  # noqa: E402
from rt2_jax.models.make_model import make_model  # noqa: E402
from rt2_jax.training.adafactor import Adafactor  # noqa: E402
from rt2_jax.training.gin_files import load_model_config  # noqa: E402
from rt2_jax.training.mesh import MeshShape, make_mesh  # noqa: E402
from rt2_jax.training.partitioning import Partitioner, logical_axis_rules  # noqa: E402
from rt2_jax.training.train_state import train_state_initializer  # noqa: E402

ROWS = 16

devices = topologies.get_topology_desc(platform="tpu", topology_name=sys.argv[1]).devices
mesh = make_mesh(MeshShape(data=1, fsdp=-1, tensor=2), devices)
partitioner = Partitioner(mesh, logical_axis_rules(sequence_parallel=True))
config = load_model_config(["models/rt2_palix_tiny.gin"], ["ACTIVATION_DTYPE = 'bfloat16'"])
model = make_model(dataclasses.replace(config, remat="full"), Adafactor())
shapes = InputSpec(config.image_slots, config.image_size, 64, 32).batch_shapes(ROWS)
abstract = train_state_initializer(model, partitioner, shapes).abstract.params
batch = {
    name: jax.ShapeDtypeStruct(shape, model.features[name][0], sharding=partitioner.batch_sharding)
    for name, shape in shapes.items()
    if name in model.features
}


def loss(params, batch):
    sums = model.example_sums(params, batch)
    return sums.cross_entropy.sum()


with partitioner.active():
    gradients = jax.jit(
        jax.grad(loss), out_shardings=jax.tree.map(lambda leaf: leaf.sharding, abstract)
    )
    options = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
    compiled = gradients.lower(abstract, batch).compile(options)
text = compiled.as_text()
pattern = r"= (\w+\[[\d,]*\])\S* (all-gather|all-reduce|reduce-scatter|all-to-all)(?:-start)?\("
print(
    json.dumps(
        {
            "collectives": [list(found) for found in re.findall(pattern, text)],
            "scattered": text.count("all-reduce-scatter"),
            "bytes": compiled.memory_analysis().peak_memory_in_bytes,
        }
    )
)
