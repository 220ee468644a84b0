"""Many hosts as one program: how they are named, or found. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pathlib
import re
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Hosts:
    """How the processes of a run find each other.

    Attributes:
      coordinator_address: of process 0, HOST:PORT; None to ask the cluster.
      process_count: with `coordinator_address`.
      process_index: with `coordinator_address`.
      detect: whether a cluster is looked for without `coordinator_address`.
      timeout: seconds without a sign of life after which a process counts as lost.
      start_timeout: seconds that processes wait for each other at the start.

    Raises:
      ValueError: an address without the two numbers, or the other way round; or a time below 1.
    """

    coordinator_address: str | None = None
    process_count: int | None = None
    process_index: int | None = None
    detect: bool = True
    timeout: int = 100
    start_timeout: int = 300

    def __post_init__(self) -> None:
        named = (self.coordinator_address, self.process_count, self.process_index)
        if any(each is not None for each in named) and any(each is None for each in named):
            raise ValueError(
                f"found --coordinator-address {named[0]}, --process-count {named[1]}, "
                f"--process-index {named[2]}; expected all three or none"
            )
        if self.coordinator_address is not None:
            count, index = self.process_count or 0, self.process_index or 0
            if not 0 <= index < count:
                raise ValueError(
                    f"--process-index: found {self.process_index} of {count} processes, expected "
                    "0 to one below their number"
                )
            if not re.fullmatch(r".+:\d+", self.coordinator_address):
                raise ValueError(
                    f"--coordinator-address: found {self.coordinator_address!r}, expected HOST:PORT"
                )
        for name in ("timeout", "start_timeout"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected 1 or more seconds")

    @property
    def may_be_many(self) -> bool:
        """Whether flags or the environment speak of more than one process; costs nothing."""
        if self.coordinator_address is not None:
            return True
        return self.detect and cluster_in(os.environ) is not None


def cluster_in(environment: Mapping[str, str]) -> str | None:
    """The kind of cluster that environment variables speak of.

    JAX then reads addresses and numbers itself (`jax.distributed.initialize`).
    """

    def several(name: str) -> bool:
        return environment.get(name, "").isdigit() and int(environment[name]) > 1

    if "MEGASCALE_COORDINATOR_ADDRESS" in environment:
        return "TPU slices"
    if {"TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"} & set(environment):
        return "GKE TPU"
    if several("SLURM_NTASKS") and "SLURM_PROCID" in environment:
        return "SLURM"
    if several("OMPI_COMM_WORLD_SIZE"):
        return "Open MPI"
    if {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= set(environment):
        # JAX asks the cluster through this package; without it, flags must say who is who.
        return "Kubernetes" if importlib.util.find_spec("kubernetes") is not None else None
    if pathlib.Path("/dev/accel0").exists() and "TPU_SKIP_MDS_QUERY" not in environment:
        return "TPU VM"
    return None
