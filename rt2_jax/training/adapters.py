"""Checkpoints of adapters: which base they belong to, and the parameters of both together."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from rt2_jax.actions.identity import check_keys
from rt2_jax.training.checkpoints import (
    ADAPTERS,
    EMA,
    PARAMS,
    STATE,
    check_which,
    find_checkpoint,
    item_metadata,
    read_description,
    restore_params,
    restore_tree,
)
from rt2_jax.training.lora import Layout, LoRA, merge

_FIRST = 256


@dataclasses.dataclass(frozen=True)
class Adapters:
    """What a checkpoint says of its adapters, in its item `rt2` under `adapters`.

    Attributes:
      lora: which kernels, how large.
      layouts: of the kernels that are adapted, by their paths.
      base: the checkpoint that they were trained on: a path, or `pretrained:NAME`.
      base_hash: of its parameters, see `params_hash`.
    """

    lora: LoRA
    layouts: Mapping[str, Layout]
    base: str
    base_hash: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "lora": {**dataclasses.asdict(self.lora), "patterns": list(self.lora.patterns)},
            "kernels": {name: list(layout) for name, layout in self.layouts.items()},
            "base": self.base,
            "base_hash": self.base_hash,
        }

    @classmethod
    def from_json(cls, data: Any, where: str) -> Adapters:
        """Reads what `to_json` wrote; `where` is what errors call it.

        Raises:
          TypeError, KeyError, ValueError: anything missing, unknown or wrong.
        """
        check_keys(where, data, ("lora", "kernels", "base", "base_hash"))
        names = tuple(field.name for field in dataclasses.fields(LoRA))
        check_keys(f"{where}.lora", data["lora"], names)
        return cls(
            LoRA(**{**data["lora"], "patterns": tuple(data["lora"]["patterns"])}),
            {name: Layout(*layout) for name, layout in data["kernels"].items()},
            data["base"],
            data["base_hash"],
        )


def read_adapters(checkpoint: pathlib.Path) -> Adapters | None:
    """What a checkpoint says of its adapters; None if it has its own parameters.

    Raises:
      FileNotFoundError: it is no checkpoint, or not a whole one.
      TypeError, KeyError, ValueError: it is damaged.
    """
    data = read_description(checkpoint).get(ADAPTERS)
    return None if data is None else Adapters.from_json(data, f"{checkpoint}: rt2.{ADAPTERS}")


def restore_merged(
    checkpoint: pathlib.Path,
    abstract: Any,
    which: str = PARAMS,
    base: str | pathlib.Path | None = None,
) -> Any:
    """The parameters of a checkpoint; if it has adapters alone, merged into their base.

    Args:
      checkpoint: a `checkpoint_<step>` directory.
      abstract: the tree of shapes, dtypes and shardings.
      which: `params`, or `ema` for their average.
      base: of adapters, where their base is now; None: where it was.

    Raises:
      FileNotFoundError: there is no such checkpoint, or the base is not there.
      ValueError: a checkpoint is damaged or holds other weights than `abstract`; or the base is
        another one than the adapters were trained on.
    """
    adapters = read_adapters(checkpoint)
    if adapters is None:
        if base is not None:
            raise ValueError(f"{checkpoint}: has all its parameters, so it needs no base ({base})")
        return restore_params(checkpoint, abstract, which)
    source = find_base(checkpoint, adapters, base)
    params = restore_params(source, abstract)
    found = params_hash(params)
    if found != adapters.base_hash:
        raise ValueError(
            f"{checkpoint}: its adapters were trained on {adapters.base}, whose parameters are "
            f"{adapters.base_hash[:12]}; those of {source} are {found[:12]}, another base: say "
            "where the right one is: rt2 convert --base PATH"
        )
    trained = restore_adapters(checkpoint, adapters, which, jax.tree.leaves(abstract)[0].sharding)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    merged = functools.partial(merge, layouts=adapters.layouts, scale=adapters.lora.scale)
    return jax.jit(merged, out_shardings=shardings, donate_argnums=0)(params, trained)


def find_base(
    checkpoint: pathlib.Path, adapters: Adapters, base: str | pathlib.Path | None = None
) -> pathlib.Path:
    """Where the base of a checkpoint's adapters is.

    Args:
      checkpoint: what errors call the adapters.
      adapters: its.
      base: where it is now; None: where it was.

    Raises:
      FileNotFoundError: it is not there.
    """
    try:
        return find_checkpoint(adapters.base if base is None else base)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{checkpoint}: has adapters alone, and their base is not there ({error}); say where "
            "it is now: rt2 convert --base PATH"
        ) from error


def restore_adapters(
    checkpoint: pathlib.Path, adapters: Adapters, which: str, sharding: jax.sharding.Sharding
) -> Any:
    """The tree of the adapters, whole on every device of a sharding.

    Raises:
      ValueError: the checkpoint is damaged, or has no average.
    """
    check_which(checkpoint, which)
    sharding = _whole(sharding)
    path = (adapters.lora.name,)
    item = ADAPTERS
    if not (checkpoint / ADAPTERS).is_dir():
        item, path = (EMA, (ADAPTERS,)) if which == EMA else (STATE, ("target",))
    found: Any = item_metadata(checkpoint, item)
    for name in path:
        found = found.get(name, {})
    wanted = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), found
    )
    flat = flatten_dict(wanted, sep="/")
    pairs = {f"{name}/{part}" for name in adapters.layouts for part in ("lora_a", "lora_b")}
    if set(flat) != pairs:
        raise ValueError(
            f"{checkpoint}: is damaged: it says that it adapts {', '.join(adapters.layouts)}, and "
            f"holds {', '.join(flat) or 'nothing'}"
        )
    return restore_tree(checkpoint, {path[0]: wanted}, item)[path[0]]


def params_hash(params: Any) -> str:
    """Tells models apart: SHA-256 of names, shapes and the first 256 numbers of every array.

    The numbers count as bfloat16 has them, so that an export in bfloat16 is the same model.
    """
    flat = flatten_dict(params, sep="/")
    heads = first_numbers(flat, _FIRST, jnp.bfloat16)
    digest = hashlib.sha256()
    for name in sorted(flat):
        digest.update(f"{name} {flat[name].shape}\n".encode())
        digest.update(heads[name].astype(np.float32).tobytes())
    return digest.hexdigest()


def first_numbers(params: Any, count: int, dtype: Any) -> Any:
    """The first numbers of every array of a tree, in the array's order; [count] or fewer each.

    No more of an array is moved between devices than is needed.
    """
    sharding = _whole(jax.tree.leaves(params)[0].sharding)

    def first(leaf: jax.Array) -> jax.Array:
        while leaf.ndim > 1:
            rows = math.ceil(count / max(math.prod(leaf.shape[1:]), 1))
            leaf = leaf[:rows]
            if rows > 1:
                break
            leaf = leaf[0]
        return leaf.reshape(-1)[:count].astype(dtype)

    heads = jax.jit(lambda tree: jax.tree.map(first, tree), out_shardings=sharding)(params)
    return jax.tree.map(np.asarray, heads)


def _whole(sharding: jax.sharding.Sharding) -> jax.sharding.Sharding:
    """Everything on every device of a sharding."""
    if isinstance(sharding, jax.sharding.NamedSharding):
        return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    return sharding
