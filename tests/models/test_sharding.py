"""What moves between devices, and in which dtype: read from the program after it was divided."""

import re

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

from rt2_jax.models.layers import Mlp, RMSNorm, TokenEmbedder
from rt2_jax.models.sharding import constrain, constrain_residual, enter_block, parameter_layout
from rt2_jax.training.mesh import MeshShape, make_mesh
from rt2_jax.training.partitioning import Partitioner, logical_axis_rules


class Block(nn.Module):
    """A norm and an MLP around a residual."""

    @nn.compact
    def __call__(self, x):
        normed = enter_block(RMSNorm(jnp.bfloat16, name="norm")(x))
        mlp = Mlp(32, ("relu",), jnp.bfloat16, name="mlp")
        return constrain_residual(x + mlp(normed, True))


def partitioner(sequence_parallel=False, **shape):
    mesh = make_mesh(MeshShape(**{"data": 1, **shape}))
    return Partitioner(mesh, logical_axis_rules(sequence_parallel=sequence_parallel))


def collectives(module, x, of, folder):
    """`dtype[shape] operation` of each collective of the loss and its gradients, per device."""
    boxed = jax.eval_shape(module.init, jax.random.key(0), x)
    specs = nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), of.mesh, of.rules)

    def loss(params, x):
        return jnp.sum(module.apply(params, x).astype(jnp.float32) ** 2)

    params = nn.meta.unbox(boxed)
    with of.active():
        gradients = jax.jit(
            jax.grad(loss), in_shardings=(specs, of.batch_sharding), out_shardings=specs
        )
        gradients.lower(params, x).compile(
            {"xla_dump_to": str(folder), "xla_dump_hlo_pass_re": "spmd-partitioning"}
        )
    (text,) = [path.read_text() for path in folder.glob("*after_spmd-partitioning*.txt")]
    pattern = r"= (\w+\[[\d,]*\])\S* (all-gather|all-reduce|reduce-scatter|all-to-all)\("
    return [" ".join(found) for found in re.findall(pattern, text)]


def test_parameters_are_gathered_in_the_dtype_of_activations_forward_and_backward(tmp_path):
    x = jax.ShapeDtypeStruct((16, 8, 64), jnp.bfloat16)
    found = collectives(Block(), x, partitioner(fsdp=8), tmp_path)
    gathers = [each for each in found if each.endswith("all-gather")]
    assert sorted(gathers) == [
        *["bf16[32,64] all-gather"] * 2,
        *["bf16[64,32] all-gather"] * 2,
        "f32[64] all-gather",  # the norm's scale
    ]


def test_what_tensor_divides_of_the_residual_stream_is_gathered_behind_the_norm(tmp_path):
    x = jax.ShapeDtypeStruct((4, 8, 64), jnp.bfloat16)
    whole = collectives(Block(), x, partitioner(data=4, tensor=2), tmp_path / "whole")
    assert "bf16[1,8,64] all-gather" not in whole
    divided = collectives(Block(), x, partitioner(True, data=4, tensor=2), tmp_path / "divided")
    assert "bf16[1,8,64] all-gather" in divided
    assert not any(each.startswith("f32[1,8,64]") for each in divided)


def test_embeddings_are_gathered_as_activations_and_their_gradient_is_added_up_in_float32(tmp_path):
    module = TokenEmbedder(128, 64, jnp.bfloat16)
    tokens = jax.ShapeDtypeStruct((8, 4), jnp.int32)
    found = collectives(module, tokens, partitioner(fsdp=8), tmp_path)
    assert "bf16[128,64] all-gather" in found and "f32[128,64] all-gather" not in found
    moved = [each for each in found if not each.endswith("all-gather")]
    assert moved and all(each.startswith("f32") for each in moved)


@pytest.mark.parametrize(
    ("length", "expected"), [(8, ("sequence", "tensor")), (6, ("sequence",)), (7, None), (1, None)]
)
def test_a_length_is_divided_as_far_as_it_goes(length, expected):
    with partitioner(True, data=2, sequence=2, tensor=2).active():
        x = jax.jit(constrain_residual)(jnp.ones((4, length, 8)))
    found = x.sharding.spec[1] if len(x.sharding.spec) > 1 else None
    assert ((found,) if isinstance(found, str) else found) == expected


def test_without_a_mesh_nothing_is_laid_out():
    x = jnp.ones((3, 5, 7))
    assert parameter_layout(("embed", "mlp")) is None
    assert enter_block(x) is x and constrain(x, ("batch", "length", "embed")) is x


def test_only_what_also_divides_the_batch_is_gathered():
    with partitioner(data=2, tensor=4).active():
        assert parameter_layout(("embed", "mlp")) is None
    with partitioner(fsdp=2, tensor=4).active():
        held, used = parameter_layout(("embed", "mlp"))
    assert held == PartitionSpec(("fsdp",), ("tensor",)) and used == PartitionSpec((), ("tensor",))
