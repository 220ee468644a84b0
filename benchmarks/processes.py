"""A process and all that it has started, as Linux counts them in /proc."""

from __future__ import annotations

import os
import pathlib

_PARENT = 1  # of the words of /proc/PID/stat behind the program's name
_TIMES = slice(11, 15)  # user and system time of the process, and of its children that have ended


def family(pid: int) -> list[int]:
    """The process and all below it that are alive."""
    return list(_family(pid))


def cpu_seconds(pid: int | None = None) -> float:
    """User and system time of a process (default: this one), all its threads and all below it.

    Processes that have ended count, too. The clock ticks every 10 ms.
    """
    ticks = sum(sum(map(int, words[_TIMES])) for words in _family(pid or os.getpid()).values())
    return ticks / os.sysconf("SC_CLK_TCK")


def _family(pid: int) -> dict[int, list[str]]:
    """What /proc/PID/stat says behind the name, of the process and of all below it."""
    stats = {}
    for file in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            stats[int(file.parent.name)] = file.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
    found = {pid: stats[pid]}
    while below := [
        each for each in stats if each not in found and int(stats[each][_PARENT]) in found
    ]:
        found |= {each: stats[each] for each in below}
    return found
