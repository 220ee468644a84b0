"""A server in a process of its own, and what it uses: CPU time and memory, as Linux counts them."""

from __future__ import annotations

import contextlib
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from rt2_jax.benchmarks.processes import cpu_seconds, family

_LISTENS = "0A"  # of /proc/net/tcp: the state, column 3
_LOCAL = ("127.0.0.1", "localhost", "::1")


@contextlib.contextmanager
def started(arguments: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Starts `python ARGUMENTS`, a program that prints its URL, and ends it; (URL, its process).

    Raises:
      ValueError: it ended before that; the message is the last line it wrote.
    """
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"ws://\S+", line):
                    yield found[0], process.pid
                    return
            errors.seek(0)
            lines = errors.read().strip().splitlines() or ["it said nothing"]
            raise ValueError(f"the server has not started: {lines[-1]}")
        finally:
            process.terminate()
            process.communicate(timeout=30)


def listener(url: str) -> int | None:
    """The process of this machine that listens at a URL; None where it cannot be seen."""
    parts = urlsplit(url)
    if parts.hostname not in _LOCAL or parts.port is None:
        return None
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in pathlib.Path(table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENS and int(words[1].rpartition(":")[2], 16) == parts.port:
                    sockets.add(f"socket:[{words[9]}]")
    for folder in pathlib.Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            for file in folder.iterdir():
                with contextlib.suppress(OSError):
                    if str(file.readlink()) in sockets:
                        return int(folder.parent.name)
    return None


class Usage:
    """What a process and all below it use from now on.

    Args:
      pid: of it.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._begin = time.monotonic()
        self._cpu_s = cpu_seconds(pid)
        self._bytes = [resident_bytes(pid)]

    def look(self) -> None:
        """Notes the memory of this moment."""
        self._bytes.append(resident_bytes(self._pid))

    def to_json(self) -> dict[str, float]:
        """Seconds of CPU time and processors in use since the beginning; memory in megabytes."""
        cpu_s = cpu_seconds(self._pid) - self._cpu_s
        return {
            "cpu_s": cpu_s,
            "cpus": cpu_s / (time.monotonic() - self._begin),
            "rss_first_mb": self._bytes[0] / 1e6,
            "rss_last_mb": self._bytes[-1] / 1e6,
            "rss_most_mb": max(self._bytes) / 1e6,
        }


def resident_bytes(pid: int) -> int:
    """Memory of a process and all below it; what they share counts for each."""
    total = 0
    for each in family(pid):
        with contextlib.suppress(OSError):
            status = pathlib.Path(f"/proc/{each}/status").read_text()
            if found := re.search(r"VmRSS:\s+(\d+) kB", status):
                total += 1024 * int(found[1])
    return total
