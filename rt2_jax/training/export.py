"""A checkpoint of a run as one to give away: parameters, or adapters, and their description."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from rt2_jax.training.adapters import find_base, read_adapters, restore_adapters, restore_merged
from rt2_jax.training.checkpoints import (
    ADAPTERS,
    DESCRIPTION,
    PARAMS,
    STATE,
    checkpoint_path,
    item_metadata,
    read_description,
)


def export_params(
    checkpoint: pathlib.Path,
    directory: pathlib.Path,
    dtype: str | None = None,
    which: str = PARAMS,
    base: str | pathlib.Path | None = None,
) -> pathlib.Path:
    """Writes a checkpoint of parameters and description alone: all that serving reads.

    Adapters are merged into their base.

    Args:
      checkpoint: a `checkpoint_<step>` directory.
      directory: gets a directory of the same name.
      dtype: of the parameters in the file, e.g. `bfloat16`; None keeps them as they are.
      which: `params`, or `ema` for their average.
      base: of adapters, where their base is now; None: where it was.

    Returns:
      The new checkpoint's path.

    Raises:
      FileExistsError: it is there already.
      FileNotFoundError: there is no such checkpoint, or no base.
      ValueError: it is damaged, or as `restore_merged`.
    """
    source, target = _ends(checkpoint, directory)
    adapters = read_adapters(source)
    weights = source if adapters is None else find_base(source, adapters, base)
    params = restore_merged(source, _abstract(weights), which, base)
    if dtype is not None:
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    description = read_description(source)
    description.pop(ADAPTERS, None)
    return _write(target, PARAMS, params, description)


def export_adapters(
    checkpoint: pathlib.Path, directory: pathlib.Path, which: str = PARAMS
) -> pathlib.Path:
    """Writes a checkpoint of adapters and description alone; whoever reads it needs the base.

    Args:
      checkpoint: a `checkpoint_<step>` directory of a run with LoRA.
      directory: gets a directory of the same name.
      which: `params`, or `ema` for their average.

    Returns:
      The new checkpoint's path; its item `adapters` has the tree under the adapters' name.

    Raises:
      FileExistsError: it is there already.
      FileNotFoundError: there is no such checkpoint.
      ValueError: it is damaged, has no average, or no adapters.
    """
    source, target = _ends(checkpoint, directory)
    adapters = read_adapters(source)
    if adapters is None:
        raise ValueError(f"{source}: has no adapters: its run had no LoRA")
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    tree = restore_adapters(source, adapters, which, device)
    return _write(target, ADAPTERS, {adapters.lora.name: tree}, read_description(source))


def _ends(checkpoint: pathlib.Path, directory: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    source = checkpoint_path(checkpoint)
    target = directory.absolute() / source.name
    if target.exists():
        raise FileExistsError(f"{target} exists already; nothing was written")
    return source, target


def _abstract(source: pathlib.Path) -> Any:
    """A checkpoint's parameters, all on one device, whichever mesh saved them."""
    alone = (source / PARAMS).is_dir()
    metadata = item_metadata(source, PARAMS if alone else STATE)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
        metadata if alone else metadata["target"],
    )


def _write(target: pathlib.Path, item: str, tree: Any, description: dict[str, Any]) -> pathlib.Path:
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(
            target,
            ocp.args.Composite(
                **{item: ocp.args.PyTreeSave(tree), DESCRIPTION: ocp.args.JsonSave(description)}
            ),
        )
    # Orbax writes the whole path there; what is given away names no machine's folders.
    for marker in target.rglob("commit_success.txt"):
        marker.write_text(f"Checkpoint commit was successful to {target.name}")
    return target
