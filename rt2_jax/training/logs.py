"""Where a run's numbers go: JSONL, TensorBoard event files, a line on the terminal."""

from __future__ import annotations

import json
import math
import os
import pathlib
import socket
import struct
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Protocol

import jax
from rich.progress import BarColumn, Progress, TextColumn

from rt2_jax.data.tfrecord import framed
from rt2_jax.training.t5x_names import t5x_names


class Log(Protocol):
    """Takes numbers of a step."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """`step` is how many steps were taken."""


class JsonlLog:
    """One JSON object a line, `{"step": ..., name: number, ...}`.

    A restarted run takes its later steps again: the lines of steps after `start_step` go, and a
    line that was cut short goes with them.
    """

    def __init__(self, path: pathlib.Path, start_step: int = 0) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            text = path.read_text()
            lines = text.splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n")]
            kept = [line for line in kept if json.loads(line)["step"] <= start_step]
            if kept != lines:
                unfinished = path.with_suffix(".unfinished")
                unfinished.write_text("".join(kept))
                unfinished.replace(path)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")


class TensorBoardLog:
    """An event file of scalars that TensorBoard reads, written without TensorFlow.

    Each start of a run makes a new file and says in it where it starts, so that TensorBoard hides
    what an earlier start wrote of the same steps. Numbers that T5X logs too stand there by its
    names as well, see `t5x_names`.
    """

    def __init__(
        self, directory: pathlib.Path, start_step: int = 0, num_devices: int | None = None
    ) -> None:
        self._num_devices = num_devices or jax.device_count()
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._path = directory / name
        self._append(_bytes(3, b"brain.Event:2"))
        # SessionLog.START: events of this step and later are to be dropped.
        self._append(_varint(2, start_step + 1) + _bytes(7, _varint(1, 1)))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        numbers = {**numbers, **t5x_names(numbers, self._num_devices)}
        values = b"".join(
            _bytes(1, _bytes(1, name.encode()) + b"\x15" + struct.pack("<f", number))
            for name, number in numbers.items()
        )
        self._append(_varint(2, step) + _bytes(5, values))

    def _append(self, event: bytes) -> None:
        event = b"\x09" + struct.pack("<d", time.time()) + event
        with self._path.open("ab") as file:
            file.write(framed(event))


class TerminalLog:
    """A line for people: on a terminal one that is rewritten, with a bar; else plain lines."""

    def __init__(self, total_steps: int, start_step: int = 0) -> None:
        self._total = total_steps
        self._pace: float | None = None
        self._said_why = False
        self._bar: Progress | None = None
        if sys.stdout.isatty():
            self._bar = Progress(
                BarColumn(bar_width=20), TextColumn("{task.description}", markup=False)
            )
            self._task = self._bar.add_task("compiling", total=total_steps, completed=start_step)

    def __enter__(self) -> TerminalLog:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        if "model_flops_per_second" in numbers and "mfu" not in numbers and not self._said_why:
            self._said_why = True
            self._say("this device's peak is not known: FLOP/s are shown instead of MFU")
        pace = numbers["seconds_per_step"]
        self._pace = pace if self._pace is None else 0.8 * self._pace + 0.2 * pace
        left = timedelta(seconds=int(self._pace * (self._total - step)))
        if self._bar is None:
            clock = time.strftime("%H:%M:%S")
            self._say(f"step {step}/{self._total}  {clock}  {_shown(numbers)}  left {left}")
        else:
            shown = f"step {step}/{self._total}  {_shown(numbers, sources=False)}  left {left}"
            self._bar.update(self._task, completed=step, description=shown)

    def _say(self, line: str) -> None:
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False)


def _shown(numbers: Mapping[str, float], sources: bool = True) -> str:
    parts = [f"{name} {numbers[name]:.4f}" for name in ("loss",) if name in numbers]
    parts += [f"{name} {100 * numbers[name]:.1f} %" for name in ("accuracy",) if name in numbers]
    if numbers.get("skipped_steps"):
        parts.append(f"SKIPPED {numbers['skipped_steps']:.0f} steps that were not finite")
    if sources:
        names = [name.removesuffix("/loss") for name in numbers if name.endswith("/loss")]
        parts += [
            f"{name} {numbers[f'{name}/loss']:.4f} {100 * numbers[f'{name}/accuracy']:.1f} %"
            for name in names
        ]
    parts += [
        _duration(numbers["seconds_per_step"]),
        f"{numbers['examples_per_second']:.0f} examples/s",
        f"data wait {100 * numbers['data_wait']:.0f} %",
    ]
    if "mfu" in numbers:
        parts.append(f"MFU {100 * numbers['mfu']:.1f} %")
    elif "model_flops_per_second" in numbers:
        parts.append(f"{_scaled(numbers['model_flops_per_second'])}FLOP/s")
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms/step" if seconds < 1 else f"{seconds:.2f} s/step"


def _scaled(number: float) -> str:
    """`12.3 G`: a number with the prefix of its size."""
    power = min(max(int(math.log10(number) // 3), 0), 6) if number > 0 else 0
    return f"{number / 1000**power:.1f} {('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}"


def _varint(field: int, value: int) -> bytes:
    """A protocol buffer's integer field."""
    return bytes([field << 3]) + _encode(value)


def _bytes(field: int, value: bytes) -> bytes:
    """A protocol buffer's field of bytes, text or a message."""
    return bytes([field << 3 | 2]) + _encode(len(value)) + value


def _encode(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])
