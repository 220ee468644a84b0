"""What the devices of a run can do, and what of their memory is in use."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from typing import Any

import jax

PEAK_FLOPS: Mapping[str, float] = {
    # Dense bfloat16 of one device as jax counts them. TPUs: cloud.google.com/tpu/docs, the page
    # of each version; v2, v3 and 7x have two devices in a chip.
    "TPU v2": 45e12 / 2,
    "TPU v3": 123e12 / 2,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 2307e12 / 2,
    # GPUs: NVIDIA's data sheets, which print twice as much for sparse matrices.
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 NVL": 835e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA H200": 989e12,
}
"""By the beginning of `device_kind`; the longest that fits counts."""


def peak_flops(device_kind: str) -> float | None:
    """Dense bfloat16 FLOP/s of a device; None if the table has none, as of a CPU."""
    fitting = [name for name in PEAK_FLOPS if f"{device_kind} ".startswith(f"{name} ")]
    return PEAK_FLOPS[max(fitting, key=len)] if fitting else None


def memory_numbers(devices: Sequence[Any] | None = None) -> dict[str, float]:
    """Bytes in use: the most that one local device had, and the most of this process.

    Returns:
      `device_memory_peak_bytes` and, where it is known, `device_memory_limit_bytes`, where the
      backend counts them (TPUs and GPUs do, CPUs do not); and `host_memory_peak_bytes`, the
      process's largest resident set.
    """
    numbers = {}
    counted = [stats for each in devices or jax.local_devices() if (stats := each.memory_stats())]
    for name, key in (("peak", "peak_bytes_in_use"), ("limit", "bytes_limit")):
        known = [float(stats[key]) for stats in counted if key in stats]
        if known:
            numbers[f"device_memory_{name}_bytes"] = max(known)
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**numbers, "host_memory_peak_bytes": 1024.0 * usage}
