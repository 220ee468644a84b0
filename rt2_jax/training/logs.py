"""Where a run's numbers go: JSONL, TensorBoard event files, a line on the terminal."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import struct
import time
from collections.abc import Mapping
from typing import Protocol

from rt2_jax.data.tfrecord import framed


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
    what an earlier start wrote of the same steps.
    """

    def __init__(self, directory: pathlib.Path, start_step: int = 0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._path = directory / name
        self._append(_bytes(3, b"brain.Event:2"))
        # SessionLog.START: events of this step and later are to be dropped.
        self._append(_varint(2, start_step + 1) + _bytes(7, _varint(1, 1)))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
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
    """One plain line."""

    def __init__(self, total_steps: int) -> None:
        self._total_steps = total_steps

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        shown = "  ".join(f"{name} {number:.4g}" for name, number in numbers.items())
        print(f"step {step}/{self._total_steps}  {shown}", flush=True)


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
