"""The weights of a checkpoint: what shape they have, and which they are."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

from rt2_jax.models.model import Params
from rt2_jax.training.adapters import first_numbers
from rt2_jax.training.description import RunDescription


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
    digest = hashlib.sha256()
    for numbers in jax.tree.leaves(first_numbers(params, 256, np.float32)):
        digest.update(numbers.tobytes())
    return digest.hexdigest()
