"""The parameters of a checkpoint, in a model that sees pictures of another size."""

from __future__ import annotations

import functools
import logging
import pathlib
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from rt2_jax.models.config import VisionConfig
from rt2_jax.models.config_json import Config, ModelConfig, config_from_json
from rt2_jax.models.position import resample_positions
from rt2_jax.training.checkpoints import read_description, restore_params

_LOG = logging.getLogger(__name__)
_POSITIONS = ("vision", "pos_embedding")  # where every vision transformer has its positions


def stored_model(checkpoint: pathlib.Path) -> Config:
    """The configuration of the model that a checkpoint holds.

    Raises:
      FileNotFoundError: it is no checkpoint, or not a whole one.
      KeyError, TypeError, ValueError: it is damaged, or of another version.
    """
    return config_from_json(read_description(checkpoint).get("model"), f"{checkpoint}: model")


def stored_params(checkpoint: pathlib.Path, model: ModelConfig, abstract: Any) -> Any:
    """What a checkpoint must hold so that `restore_resampled` can make `abstract` of it.

    Args:
      checkpoint: a `checkpoint_<step>` directory.
      model: that the parameters are for.
      abstract: its tree of shapes, dtypes and shardings.

    Returns:
      The same tree; positions of pictures have as many rows as the checkpoint's grid has places.

    Raises:
      FileNotFoundError, KeyError, TypeError, ValueError: as `stored_model`.
    """
    grids = _grids(checkpoint, model)
    if grids is None:
        return abstract
    rows, flat = grids[0][0] * grids[0][1], flatten_dict(abstract)
    for path in _positions(flat):
        flat[path] = flat[path].update(shape=(rows, flat[path].shape[1]))
    return unflatten_dict(flat)


def restore_resampled(checkpoint: pathlib.Path, model: ModelConfig, abstract: Any) -> Any:
    """`restore_params`, with the positions of pictures resampled where the size is another.

    That is said in the log. Positions are interpolated by where they stand in the picture
    (Dosovitskiy et al. 2021, section 3.2).

    Args:
      checkpoint: a `checkpoint_<step>` directory.
      model: that the parameters are for.
      abstract: its tree of shapes, dtypes and shardings.

    Raises:
      FileNotFoundError, KeyError, TypeError: as `stored_model`.
      ValueError: it is damaged, or holds other weights than `stored_params`.
    """
    params = restore_params(checkpoint, stored_params(checkpoint, model, abstract))
    grids = _grids(checkpoint, model)
    if grids is None:
        return params
    old, new = grids
    flat, wanted = flatten_dict(params), flatten_dict(abstract)
    for path in _positions(flat):
        resample = functools.partial(resample_positions, grid=old, new_grid=new)
        flat[path] = jax.jit(resample, out_shardings=wanted[path].sharding)(flat[path])
        _LOG.warning(
            "%s: pictures have other positions there than in this run: %s resampled from a grid of "
            "%d x %d to %d x %d",
            checkpoint,
            "/".join(path),
            *old,
            *new,
        )
    return unflatten_dict(flat)


def _grids(
    checkpoint: pathlib.Path, model: ModelConfig
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The checkpoint's grid of picture tokens and the model's, where only the size is another."""
    old, new = (getattr(each, "vision", None) for each in (stored_model(checkpoint), model))
    if not isinstance(old, VisionConfig) or not isinstance(new, VisionConfig):
        return None
    # With other patches other weights differ as well, and are refused by their names.
    if old.grid == new.grid or old.patch_size != new.patch_size:
        return None
    return old.grid, new.grid


def _positions(flat: dict[tuple[str, ...], Any]) -> list[tuple[str, ...]]:
    return [path for path in flat if path[-2:] == _POSITIONS]
