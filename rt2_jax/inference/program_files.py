"""Files of compiled programs: named by what decides them, hashed over all that they hold."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

from rt2_jax.actions.identity import content_hash

SUFFIX = ".rt2program"
_MAGIC = b"rt2 program 1\n"
_DIGEST = 32  # bytes of SHA-256


def program_path(folder: pathlib.Path, identity: Any) -> pathlib.Path:
    """Where the file of a program is, whether it is there or not.

    Args:
      folder: of all of them.
      identity: plain JSON, all that decides the program.
    """
    return folder / f"{content_hash(identity)[:32]}{SUFFIX}"


def write_program_file(folder: pathlib.Path, identity: Any, parts: Mapping[str, bytes]) -> None:
    """Writes a file that is there as a whole or not at all; one of the same identity is replaced.

    Args:
      folder: of all of them.
      identity: plain JSON, all that decides the program.
      parts: name -> content.

    Raises:
      OSError: it cannot be written.
    """
    header = {"identity": identity, "parts": {name: len(part) for name, part in parts.items()}}
    body = b"".join([json.dumps(header).encode(), b"\n", *parts.values()])
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_MAGIC + hashlib.sha256(body).digest() + body)
        os.replace(name, program_path(folder, identity))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def read_program_file(folder: pathlib.Path, identity: Any) -> dict[str, bytes] | None:
    """The parts of a program's file, by name; None if there is none.

    Raises:
      ValueError: the file is no whole one of this program; nothing of it may be used.
      OSError: it cannot be read.
    """
    path = program_path(folder, identity)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    begin = len(_MAGIC) + _DIGEST
    if not data.startswith(_MAGIC):
        raise ValueError(f"{path}: is no file of programs of this version")
    body = data[begin:]
    if hashlib.sha256(body).digest() != data[len(_MAGIC) : begin]:
        raise ValueError(f"{path}: its hash does not fit what it holds: it was cut off or changed")
    line, _, content = body.partition(b"\n")
    header = json.loads(line)
    # As JSON has it: lists, not tuples.
    if header["identity"] != json.loads(json.dumps(identity)):
        raise ValueError(f"{path}: holds the program of another model, program version or device")
    parts = {}
    for name, size in header["parts"].items():
        parts[name], content = content[:size], content[size:]
    return parts
