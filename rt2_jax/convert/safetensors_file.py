"""Weights from safetensors files, one or a folder of shards."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np


def load_safetensors(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays by name, of one file or of all `*.safetensors` of a folder.

    bfloat16 stays bfloat16, as numpy knows it from ml_dtypes.

    Raises:
      FileNotFoundError: there is no such file, or none in the folder.
      ValueError: a name stands in two files of the folder.
      ImportError: the package is missing.
    """
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ImportError(
            "reading safetensors needs the package of that name: pip install 'rt2-jax[convert]'"
        ) from error
    path = pathlib.Path(path)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"{path}: found no safetensors file, expected one or a folder")
    arrays: dict[str, Any] = {}
    for file in files:
        with safe_open(file, framework="numpy") as opened:
            for name in opened.keys():  # noqa: SIM118, it is no mapping
                if name in arrays:
                    raise ValueError(f"{file}: {name} stands in an earlier file of {path} too")
                arrays[name] = opened.get_tensor(name)
    return arrays
