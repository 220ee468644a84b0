"""One of several processes whose meshes have `tensor` between processes.

python rows_of_processes.py INDEX COUNT PORT
"""

import os
import sys

index, count, port = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", count, index)

from rt2_jax.training.mesh import MeshShape, make_mesh  # noqa: E402
from rt2_jax.training.partitioning import Partitioner  # noqa: E402

ROWS = 8
WHOLE = np.arange(ROWS * 3, dtype=np.float32).reshape(ROWS, 3)


def weighted_sum(x):
    return jnp.sum(x * jnp.arange(ROWS, dtype=jnp.float32)[:, None])


for shape, rows in (
    (MeshShape(data=1, tensor=2 * count), ROWS),  # all processes read all rows
    (MeshShape(data=count // 2, tensor=4), ROWS // (count // 2)),  # two read the same rows
    (MeshShape(data=1, fsdp=count, sequence=2), ROWS // count),  # each reads its own
):
    partitioner = Partitioner(make_mesh(shape))
    layout = partitioner.data_layout(ROWS)
    assert len(layout.rows) == rows, layout
    batch = partitioner.to_devices({"x": WHOLE[layout.rows]})["x"]
    assert batch.shape == WHOLE.shape
    for shard in batch.addressable_shards:
        np.testing.assert_array_equal(np.asarray(shard.data), WHOLE[shard.index])

    total = jax.jit(weighted_sum, out_shardings=partitioner.replicated)(batch)
    np.testing.assert_allclose(np.asarray(total), np.sum(WHOLE * np.arange(ROWS)[:, None]))
print("all rows in their places", flush=True)
