"""A stack of equal layers, scanned or written out, and the conversion of their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from rt2_jax.models.config import REMAT

LAYER_AXIS = 1
"""Where scanned parameters have their `layers` axis; T5X's scanned models put it there too."""

STACK = "layers"

ATTENTION_PROJECTION, ATTENTION_OUTPUT = "attention_projection", "attention_output"
MLP_HIDDEN, RESIDUAL = "mlp_hidden", "residual"
"""Names of what layers compute on the way (`checkpoint_name`): queries, keys and values; values
mixed by attention; input projections of an MLP; the sum between attention and MLP."""

_POLICIES: Mapping[str, Callable[..., Any]] = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    # All but what is wide, the MLP's hidden features, and what grows with the square of the length.
    "named": jax.checkpoint_policies.save_only_these_names(
        ATTENTION_PROJECTION, ATTENTION_OUTPUT, RESIDUAL
    ),
}


def apply_layers(
    layer: type[nn.Module],
    fields: Mapping[str, Any],
    num_layers: int,
    scan: bool,
    remat: str = "none",
) -> Any:
    """A function `(x, per_layer, *shared) -> (x, outputs)` that runs the layers one by one.

    To be called inside a compact method, whose module then owns the layers: `layers`, with stacked
    parameters, if scanned, else `layers_0`, `layers_1`, ...

    Args:
      layer: its `__call__(x, mine, *shared)` gives `(x, output)`.
      fields: the constructor arguments of every layer.
      num_layers: how many.
      scan: one traced layer for all, or each by itself.
      remat: what the backward pass keeps of every layer; the rest is computed again. `none`, keep
        all; `dots`, products with weights; `named`, all named values but `MLP_HIDDEN`; `full`, the
        layer's input alone.

    Raises:
      ValueError: another `remat`.
    """
    if remat not in REMAT:
        raise ValueError(f"remat: found {remat!r}, expected one of {', '.join(REMAT)}")

    def checkpointed(shared: tuple[Any, ...]) -> type[nn.Module]:
        if remat == "none":
            return layer
        # Python's own values, as `deterministic`, stay what they are; 0 is the layer itself.
        static = tuple(i for i, value in enumerate(shared, start=3) if isinstance(value, bool))
        return nn.remat(layer, policy=_POLICIES[remat], prevent_cse=not scan, static_argnums=static)

    if scan:

        def scanned(x: jax.Array, per_layer: Any, *shared: Any) -> tuple[jax.Array, Any]:
            stack = nn.scan(
                checkpointed(shared),
                variable_axes={"params": LAYER_AXIS},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, *(nn.broadcast for _ in shared)),
                length=num_layers,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            return stack(**fields, name=STACK)(x, per_layer, *shared)

        return scanned

    def unrolled(x: jax.Array, per_layer: Any, *shared: Any) -> tuple[jax.Array, Any]:
        outputs = []
        for i in range(num_layers):
            mine = jax.tree.map(lambda leaf, i=i: leaf[i], per_layer)
            x, output = checkpointed(shared)(**fields, name=f"{STACK}_{i}")(x, mine, *shared)
            outputs.append(output)
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)

    return unrolled


def unstack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of scanned layers -> those of the same layers written out."""
    unstacked = {}
    for path, leaf in flatten_dict(params).items():
        unstacked.update(unstack_leaf(path, leaf))
    return unflatten_dict(unstacked)


def unstack_leaf(path: tuple[str, ...], leaf: Any) -> dict[tuple[str, ...], Any]:
    """One of the parameters, by its path -> those of all layers; as it is if it has no stack."""
    if STACK not in path:
        return {path: leaf}
    at = path.index(STACK)
    names = [(*path[:at], f"{STACK}_{i}", *path[at + 1 :]) for i in range(leaf.shape[LAYER_AXIS])]
    return {name: _layer(leaf, i) for i, name in enumerate(names)}


@jax.jit
def _layer(leaf: jax.Array, i: int) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(leaf, i, LAYER_AXIS, keepdims=False)


def stack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of layers written out -> those of the same layers scanned."""
    stacked: dict[tuple[str, ...], Any] = {}
    columns: dict[tuple[str, ...], dict[int, jax.Array]] = {}
    for path, leaf in flatten_dict(params).items():
        numbered = [i for i, key in enumerate(path) if key.startswith(f"{STACK}_")]
        if not numbered:
            stacked[path] = leaf
            continue
        at = numbered[0]
        name = (*path[:at], STACK, *path[at + 1 :])
        columns.setdefault(name, {})[int(path[at].removeprefix(f"{STACK}_"))] = leaf
    for name, column in columns.items():
        stacked[name] = jnp.stack([column[i] for i in range(len(column))], axis=LAYER_AXIS)
    return unflatten_dict(stacked)
