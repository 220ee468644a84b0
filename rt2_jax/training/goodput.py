"""The goodput ledger: where a run's wall time goes, over all of its starts."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

PHASES = {
    "step": "taking steps that count",
    "data_wait": "waiting for batches",
    "checkpoint": "saves, as far as they stop the steps",
    "compile": "the first step's compilation",
    "init": "from the program's start to the first batch",
    "lost": "steps that a later start took again, with their data and saves",
    "idle": "between the starts",
}
"""Every second of a run is in one of these; `step`'s share is the goodput."""

_TAKEN_AGAIN = ("step", "data_wait", "checkpoint")


@dataclasses.dataclass(frozen=True)
class Start:
    """One start of a run, as far as the ledger knows of it.

    Attributes:
      begin: when the program started, in seconds since 1970.
      end: when it was last heard of.
      first_step: the step that it went on from.
      step: the last that counts.
      seconds: of each of `PHASES` but `idle`; they add up to `end - begin`.
    """

    begin: float
    end: float
    first_step: int
    step: int
    seconds: Mapping[str, float]


class Ledger:
    """Measures what a start's time goes to, and keeps it in a file beside that of earlier starts.

    Time is always in one phase: `init` until `enter`, then `step` but for what `phase` encloses.
    A line is added every time that numbers are logged, so a killed run loses no more than that.

    Args:
      path: a JSONL file; None to keep nothing.
      begin: when the program started, in seconds since 1970; None for now.
    """

    def __init__(self, path: pathlib.Path | None = None, begin: float | None = None) -> None:
        self._path, now = path, time.time()
        self._begin = now if begin is None else min(begin, now)
        self._offset = now - time.monotonic()
        self.seconds = {phase: 0.0 for phase in PHASES if phase != "idle"}
        self._phase, self._since = "init", self._begin
        self._first_step = 0

    def enter(self, step: int) -> None:
        """The steps begin; what earlier starts did after this one is lost."""
        self._first_step = step
        self._switch("step")
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lines = [line for start in read_starts(self._path) for line in _settled(start, step)]
            unfinished = self._path.with_suffix(".unfinished")
            unfinished.write_text("".join(json.dumps(line) + "\n" for line in lines))
            unfinished.replace(self._path)
        self.write(step)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The time of the block goes to this phase."""
        before = self._phase
        self._switch(name)
        try:
            yield
        finally:
            self._switch(before)

    def write(self, step: int) -> None:
        """Adds a line: so it stood after this step."""
        self._switch(self._phase)
        if self._path is None:
            return
        line = {
            "begin": self._begin,
            "time": self._since,
            "first_step": self._first_step,
            "step": step,
            "seconds": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
        }
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _switch(self, phase: str) -> None:
        now = time.monotonic() + self._offset
        self.seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now


def read_starts(path: pathlib.Path) -> list[list[dict[str, Any]]]:
    """The lines of every start, in their order; a line cut short is left out."""
    starts: list[list[dict[str, Any]]] = []
    for text in path.read_text().splitlines(keepends=True) if path.exists() else ():
        if not text.endswith("\n"):
            continue
        line = json.loads(text)
        if starts and starts[-1][0]["begin"] == line["begin"]:
            starts[-1].append(line)
        else:
            starts.append([line])
    return starts


def read_ledger(path: pathlib.Path) -> list[Start]:
    """Every start of a run; none if there is no ledger."""
    return [
        Start(last["begin"], last["time"], last["first_step"], last["step"], last["seconds"])
        for *_, last in read_starts(path)
    ]


def wall_seconds(starts: Sequence[Start]) -> dict[str, float]:
    """Seconds of each of `PHASES`; they add up to those from the first start to the last end."""
    total = {phase: sum(start.seconds.get(phase, 0.0) for start in starts) for phase in PHASES}
    for before, after in zip(starts, starts[1:], strict=False):
        total["idle"] += max(after.begin - before.end, 0.0)
    return total


def goodput_table(starts: Sequence[Start]) -> str:
    """What a run's wall time went to, as text."""
    seconds = wall_seconds(starts)
    wall = sum(seconds.values()) or 1.0
    lines = [f"wall time {duration(wall)} in {len(starts)} start{'s' * (len(starts) != 1)}:"]
    width = max(map(len, PHASES))
    for phase, meaning in PHASES.items():
        if seconds[phase]:
            share = f"{100 * seconds[phase] / wall:5.1f} %"
            lines.append(f"  {phase:<{width}}  {duration(seconds[phase]):>12}  {share}  {meaning}")
    return "\n".join(lines)


def process_start() -> float:
    """When this process started, in seconds since 1970, where Linux tells; else now."""
    try:
        fields = pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        uptime = float(pathlib.Path("/proc/uptime").read_text().split()[0])
        age = uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        age = 0.0
    return time.time() - max(age, 0.0)


def _settled(lines: list[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """An earlier start as one line, when the run goes on from this step."""
    last = lines[-1]
    if last["step"] <= step:
        return [last]
    kept = [line for line in lines if line["step"] <= step]
    counted = kept[-1]["seconds"] if kept else {}
    seconds = dict(last["seconds"])
    for phase in _TAKEN_AGAIN:
        again = seconds[phase] - counted.get(phase, 0.0)
        seconds[phase] -= again
        seconds["lost"] += again
    return [{**last, "step": min(step, last["step"]), "seconds": seconds}]


def duration(seconds: float) -> str:
    """`12.3 s`, `1 min 05 s`, `45 h 19 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"
