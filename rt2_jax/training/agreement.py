"""Whether all hosts of a run are about to do the same, asked before the first step."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import pathlib
import re
import socket
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

import rt2_jax
from rt2_jax.training.distributed import leave_together

_NAME_BYTES = 64


def digests(config: Any, **identities: str) -> dict[str, str]:
    """What must be the same on every host, by name.

    Args:
      config: a dataclass; each of its fields has a digest of its own.
      identities: more of them, as hashes of the data.
    """
    fields = {
        f"{type(config).__name__}.{field.name}": _written(getattr(config, field.name))
        for field in dataclasses.fields(config)
    }
    return {**fields, **identities}


@functools.cache
def code_version() -> str:
    """The version of the package with a hash of its source files."""
    found = hashlib.sha256()
    root = pathlib.Path(rt2_jax.__file__).parent
    for path in sorted(root.rglob("*.py")):
        found.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{rt2_jax.__version__}+{found.hexdigest()[:16]}"


def check_agreement(mine: Mapping[str, str]) -> None:
    """Compares the code, and then `mine`, between all hosts; nothing to do for one.

    Raises:
      ValueError: they differ; it names each host that is not as most are, and in what. Every host
        raises the same.
    """
    if jax.process_count() == 1:
        return
    # Of a fixed shape, and first: other code may have other names below.
    lines = _differences({"code version": code_version()}) or _differences(mine)
    if lines:
        leave_together()  # else those that are slower to say so would take it for a loss
        raise ValueError(
            "the hosts are not about to do the same, and nothing was done:\n  " + "\n  ".join(lines)
        )


def differences(names: list[str], hosts: list[str], found: np.ndarray) -> list[str]:
    """A line for each host that is not as most are.

    Args:
      names: of what was compared.
      hosts: their names.
      found: uint8 [hosts, names, 32], digests.
    """
    common = []
    for number in range(len(names)):
        counts = collections.Counter(host.tobytes() for host in found[:, number])
        # Of equally many, those of the first host.
        common.append(max(counts, key=lambda each: counts[each]))
    lines = []
    for index, (host, row) in enumerate(zip(hosts, found, strict=True)):
        other = [name for name, a, b in zip(names, row, common, strict=True) if a.tobytes() != b]
        if other:
            lines.append(f"host {index} ({host}) has another {', '.join(other)}")
    return lines


def _differences(mine: Mapping[str, str]) -> list[str]:
    names = sorted(mine)
    rows = [hashlib.sha256(mine[name].encode()).digest() for name in names]
    host = socket.gethostname().encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
    block = np.frombuffer(host + b"".join(rows), np.uint8)
    gathered = np.asarray(multihost_utils.process_allgather(block))
    hosts = [bytes(row[:_NAME_BYTES]).rstrip(b"\0").decode(errors="replace") for row in gathered]
    found = gathered[:, _NAME_BYTES:].reshape(len(gathered), len(names), 32)
    return differences(names, hosts, found)


def _written(value: Any) -> str:
    """A value's text, without the addresses of functions."""
    if isinstance(value, Mapping):
        value = sorted(value.items())
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
