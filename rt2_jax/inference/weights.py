"""The weights of a checkpoint as served: an array for each layer, in few bits if wanted."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rt2_jax.models.layer_stack import LAYER_AXIS, STACK, unstack_leaf
from rt2_jax.models.layers import KERNEL, KERNEL_SCALE
from rt2_jax.models.model import Params, TransformerModel

if TYPE_CHECKING:  # it needs much that random weights do not
    from rt2_jax.training.description import RunDescription

FORMATS = ("stored", "bfloat16", "int8")
"""How weights can be kept: as the checkpoint has them; kernels and embeddings in bfloat16; kernels
in 8 bits with a scale of each output, and embeddings in the dtype of activations."""

_HASHED = 256
_EMBEDDING = "embedding"
_Path = tuple[str, ...]
_Flat = dict[_Path, Any]


@dataclasses.dataclass(frozen=True)
class Weights:
    """Parameters of `TransformerModel.written_out`.

    Attributes:
      params: with every layer by itself.
      hash: `weights_hash` of the checkpoint's parameters, whatever became of them.
      format: one of `FORMATS`.
    """

    params: Params
    hash: str
    format: str = "stored"

    @property
    def bytes(self) -> int:
        """What they take on all devices together."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.params))


def serving_weights(
    model: TransformerModel,
    params: Params,
    input_shapes: Mapping[str, tuple[int, ...]],
    format: str = "stored",
    *,
    consume: bool = False,
) -> Weights:
    """The parameters of a checkpoint made ready, one after the other.

    Args:
      model: of the checkpoint.
      params: its parameters, with scanned or with written out layers.
      input_shapes: of its features.
      format: one of `FORMATS`.
      consume: `params` are deleted on the way, so that there is never more than one array twice.

    Raises:
      ValueError: another format.
    """
    check_format(format)
    dense = frozenset() if format == "stored" else model.dense_layers(input_shapes)
    embedding_dtype = _embedding_dtype(model, format)
    params = jax.tree.map(jnp.asarray, params)  # NumPy's too
    digest = weights_hash(params)
    left: _Flat = flatten_dict(params)
    done: _Flat = {}
    for path in list(left):
        leaf = left.pop(path)
        for name, layer in _unstacked(path, leaf).items():
            done.update(_kept(name, layer, path[:-1] in dense, format, embedding_dtype))
        if consume:
            jax.block_until_ready(list(done.values())[-1])
            if not any(leaf is kept for kept in done.values()):
                leaf.delete()
    return Weights(unflatten_dict(done), digest, format)


def random_weights(
    model: TransformerModel, input_shapes: Mapping[str, tuple[int, ...]], format: str
) -> Weights:
    """Weights that mean nothing, made on the device in the format that they are served in.

    Kernels are drawn with the deviation that a new model's have, so that numbers stay finite.

    Args:
      model: of any size; nothing of it is held in float32 that the format keeps in less.
      input_shapes: of its features.
      format: one of `FORMATS`; `stored` is float32.

    Raises:
      ValueError: another format.
    """
    check_format(format)
    dense = model.dense_layers(input_shapes)
    embedding_dtype = _embedding_dtype(model, format)
    dtype = jnp.dtype(jnp.bfloat16 if format == "bfloat16" else jnp.float32)
    key = jax.random.key(0)
    made: _Flat = {}
    for path, stacked in flatten_dict(model.abstract_params(input_shapes)).items():
        for name, shape in _layer_shapes(path, stacked.shape):
            key, mine = jax.random.split(key)
            if name[-1] == KERNEL and path[:-1] in dense:
                made.update(_random_kernel(mine, name, shape, format, dtype))
            elif name[-1] == _EMBEDDING:
                made[name] = _normal(mine, shape, 1.0, embedding_dtype or jnp.float32)
            elif len(shape) > 1:
                made[name] = _normal(mine, shape, shape[-2] ** -0.5, jnp.float32)
            else:
                made[name] = jnp.full(shape, 1.0 if name[-1] == "scale" else 0.0)
    return Weights(unflatten_dict(made), "", format)


def check_format(format: str) -> None:
    """Refuses another format than `FORMATS`.

    Raises:
      ValueError: it names them.
    """
    if format not in FORMATS:
        raise ValueError(f"weights: found {format!r}, expected one of {', '.join(FORMATS)}")


def abstract_params(description: RunDescription) -> Any:
    """Shapes and dtypes of a checkpoint's parameters, all on the first device."""
    shapes = description.inputs.batch_shapes(1)
    params = description.make_model().abstract_params(shapes)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), params
    )


def weights_hash(params: Params) -> str:
    """Tells trainings apart: SHA-256 of the first 256 numbers of every array.

    Not of all: of a large model that would take longer than to load it.
    """
    from rt2_jax.training.adapters import first_numbers

    digest = hashlib.sha256()
    for numbers in jax.tree.leaves(first_numbers(params, _HASHED, np.float32)):
        digest.update(numbers.tobytes())
    return digest.hexdigest()


@jax.jit
def quantize(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[in, out] -> int8 [in, out] and the scale of each output, float32 [out].

    Symmetric, -127 to 127: the largest weight of an output is one of these.
    """
    kernel = kernel.astype(jnp.float32)
    scale = jnp.maximum(jnp.max(jnp.abs(kernel), axis=0), jnp.finfo(jnp.float32).tiny) / 127
    return jnp.round(kernel / scale).astype(jnp.int8), scale


def _unstacked(path: _Path, leaf: jax.Array) -> _Flat:
    if STACK not in path:
        return {path: leaf}
    sharding = leaf.sharding
    if isinstance(sharding, jax.sharding.NamedSharding):
        # As the stack lies on the mesh, without the axis of the layers.
        axes: list[Any] = [*sharding.spec, *[None] * (leaf.ndim - len(sharding.spec))]
        del axes[LAYER_AXIS]
        spec = jax.sharding.PartitionSpec(*axes)
        sharding = jax.sharding.NamedSharding(sharding.mesh, spec)
    device: Any = next(iter(sharding.device_set))
    if device.platform == "cpu" and leaf.is_fully_addressable:
        host = np.moveaxis(np.asarray(leaf), LAYER_AXIS, 0)  # nothing to compile
        layers: _Flat = {
            name: np.ascontiguousarray(part)
            for (name, _), part in zip(_layer_shapes(path, leaf.shape), host, strict=True)
        }
    else:
        layers = unstack_leaf(path, leaf)
    return jax.device_put(layers, {name: sharding for name in layers})


def _kept(
    path: _Path, leaf: jax.Array, dense: bool, format: str, embedding_dtype: Any | None
) -> _Flat:
    if dense and path[-1] == KERNEL:
        if format == "int8":
            values, scale = quantize(leaf)
            return {path: values, (*path[:-1], KERNEL_SCALE): scale}
        return {path: leaf.astype(jnp.bfloat16)}
    if path[-1] == _EMBEDDING and embedding_dtype is not None:
        return {path: leaf.astype(embedding_dtype)}
    return {path: leaf}


def _embedding_dtype(model: TransformerModel, format: str) -> Any | None:
    """None: as they are stored. What is looked up is cast to the activations' dtype anyway."""
    if format == "stored":
        return None
    return jnp.bfloat16 if format == "bfloat16" else jnp.dtype(model.module.config.dtype)


def _layer_shapes(path: _Path, shape: tuple[int, ...]) -> Iterator[tuple[_Path, tuple[int, ...]]]:
    if STACK not in path:
        yield path, shape
        return
    at, one = path.index(STACK), list(shape)
    for i in range(one.pop(LAYER_AXIS)):
        yield (*path[:at], f"{STACK}_{i}", *path[at + 1 :]), tuple(one)


def _random_kernel(
    key: jax.Array, path: _Path, shape: tuple[int, ...], format: str, dtype: Any
) -> _Flat:
    deviation = shape[0] ** -0.5
    if format != "int8":
        return {path: _normal(key, shape, deviation, dtype)}
    scale = jnp.full(shape[1:], deviation / 73.3)  # the deviation of -127 to 127
    return {path: _uniform_int8(key, shape), (*path[:-1], KERNEL_SCALE): scale}


@functools.partial(jax.jit, static_argnums=(1, 3))
def _normal(key: jax.Array, shape: tuple[int, ...], deviation: float, dtype: Any) -> jax.Array:
    return jax.random.normal(key, shape, dtype) * jnp.asarray(deviation, dtype)


@functools.partial(jax.jit, static_argnums=1)
def _uniform_int8(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.lax.bitcast_convert_type(jax.random.bits(key, shape, jnp.uint8), jnp.int8)
