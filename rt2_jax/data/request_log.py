"""What a policy server was asked and what it answered: one folder for each start of a server.

`docs/serving.md` describes the files and `docs/data_tools.md` what can be made of them. The server
writes with this module and importing reads with it; it needs neither TensorFlow nor jax.
"""

from __future__ import annotations

import bisect
import dataclasses
import io
import itertools
import json
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from PIL import Image

from rt2_jax import __version__
from rt2_jax.actions.identity import check_keys
from rt2_jax.data.cache import allow_open_files
from rt2_jax.data.journal import JOURNAL, SEALED, Journal

VERSION = 1
OUTCOMES = (
    "answered",
    "refused",
    "busy",
    "superseded",
    "late",
    "unsafe",
    "failed",
    "reset",
    "left",
)
"""Of a request; and the two events that end an episode: `reset`, and a connection that `left`."""

_INFO_FILE = "server.json"
_KEY = "rt2_request_log"  # its version, in the file above
_PREFIX = "requests-"  # of the files of records
_ARRAYS = {"state": "<f4", "actions": "<f4", "levels": "<i4", "tokens": "<i4"}


@dataclasses.dataclass(frozen=True)
class LoggedRequest:
    """A request and what became of it.

    Attributes:
      number: counts all that the server wanted to log, from 0; one that is missing was dropped.
      outcome: one of `OUTCOMES`.
      connection: the server's name of it.
      session: what the client named, else the connection.
      time: of arrival, seconds since 1970 by the server's clock.
      clock: of arrival, seconds of a clock that never jumps; it means something in one log only.
      seq: the client's number of the request, or None.
      step: the client's number of the step, or None.
      instruction: as it was sent.
      pictures: view -> PNG of the pixels that were sent; only views that the policy reads.
      state: float32 [S], or None.
      budget_s: how long the answer could take, or None.
      actions: float32 [K, D], native units, as they were answered; None without an answer.
      levels: int32 [K, D], of the codec; None where the policy gives none.
      tokens: int32 [N], or None.
      plan: text before the action.
      score: log-probability of the answer, or None.
      warnings: that went with the answer.
      error: what was said instead of an answer, or "".
      queue_s: how long it waited for the model.
      infer_s: how long its batch took.
      total_s: from arrival until the answer was ready to be sent.
      batch_size: how many were answered together; 0 without an answer.
    """

    number: int
    outcome: str
    connection: str
    session: str
    time: float
    clock: float
    seq: Any = None
    step: int | None = None
    instruction: str = ""
    pictures: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    state: np.ndarray | None = None
    budget_s: float | None = None
    actions: np.ndarray | None = None
    levels: np.ndarray | None = None
    tokens: np.ndarray | None = None
    plan: str = ""
    score: float | None = None
    warnings: tuple[str, ...] = ()
    error: str = ""
    queue_s: float | None = None
    infer_s: float | None = None
    total_s: float | None = None
    batch_size: int = 0

    def pack(self) -> bytes:
        """A msgpack map; an array is its shape and little-endian bytes."""
        data = dict(self.__dict__)
        for name, kind in _ARRAYS.items():
            if data[name] is not None:
                data[name] = [list(data[name].shape), data[name].astype(kind).tobytes()]
        packed: bytes = msgpack.packb(data, unicode_errors="replace")
        return packed

    @classmethod
    def unpack(cls, data: bytes) -> LoggedRequest:
        """Reads what `pack` wrote."""
        values = msgpack.unpackb(data, strict_map_key=False)
        for name, kind in _ARRAYS.items():
            if values[name] is not None:
                shape, numbers = values[name]
                values[name] = np.frombuffer(numbers, kind).reshape(shape)
        return cls(**{**values, "warnings": tuple(values["warnings"])})


@dataclasses.dataclass(frozen=True)
class LogInfo:
    """What a log says about itself, in `server.json`.

    Attributes:
      metadata: the policy's, as clients are told: checkpoint, weights, action space, bounds, codec,
        views, state fields, control rate, prompt, hashes.
      started: when, in seconds since 1970.
      pid: the server's process.
      server_version: of this package.
      ended: `time`, how many `requests` there were to log, and how many of them were `dropped`;
        None while the server runs, and for ever if it was killed.
    """

    metadata: Mapping[str, Any]
    started: float
    pid: int
    server_version: str
    ended: Mapping[str, Any] | None = None


def encode_picture(image: np.ndarray) -> bytes:
    """Uint8 [H, W, 3] as PNG, packed less tightly than in data sets, which is faster."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png", compress_level=1)
    return file.getvalue()


def picture_size(data: bytes) -> tuple[int, int]:
    """(height, width) of an encoded picture, which is not decoded."""
    with Image.open(io.BytesIO(data)) as image:
        return image.height, image.width


def new_log(root: str | pathlib.Path, metadata: Mapping[str, Any]) -> tuple[pathlib.Path, LogInfo]:
    """Makes the folder of a server that starts now.

    Raises:
      OSError: it cannot be made.
    """
    info = LogInfo(metadata, time.time(), os.getpid(), __version__)
    start = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(info.started))
    root = pathlib.Path(root)
    root.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        folder = root / f"{start}-{info.pid}{f'-{number}' if number else ''}"
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        write_info(folder, info)
        break
    return folder, info


def write_info(folder: pathlib.Path, info: LogInfo) -> None:
    """Writes `server.json`; it is there whole or not at all."""
    data = {_KEY: VERSION, **dataclasses.asdict(info)}
    unfinished = folder / f"{_INFO_FILE}.unfinished"
    unfinished.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    unfinished.replace(folder / _INFO_FILE)


def journal_file(folder: pathlib.Path, number: int) -> pathlib.Path:
    """Where records go until their file is full."""
    return folder / f"{_PREFIX}{number:05d}{JOURNAL}"


def find_logs(directory: str | pathlib.Path) -> list[pathlib.Path]:
    """The logs of a `--log-dir` in the order of the servers' starts; or the one log that it is.

    Raises:
      FileNotFoundError: no such folder, or no log in it.
    """
    directory = pathlib.Path(directory)
    if (directory / _INFO_FILE).is_file():
        return [directory]
    found = sorted(file.parent for file in directory.glob(f"*/{_INFO_FILE}"))
    if not found:
        tasks = {file.parents[1].name for file in directory.glob(f"*/*/{_INFO_FILE}")}
        if tasks:
            raise FileNotFoundError(
                f"{directory}: found the logs of the tasks {sorted(tasks)}, expected those of one: "
                f"give {directory / min(tasks)}, or one of those in it"
            )
        raise FileNotFoundError(
            f"{directory}: no log of a server in it; expected the folder of `rt2 serve --log-dir`, "
            f"or one of those in it, with {_INFO_FILE}"
        )
    return found


class RequestLog:
    """The records of one log by number, as far as they are written; a server may be writing on.

    Attributes:
      folder: where it is.
      info: what it says about itself.
      unreadable: bytes behind the last whole record of files that their writer did not close.

    Raises:
      ValueError: no log, one of another version, or a damaged file.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.info = _read_info(folder / _INFO_FILE)
        names = {
            file.stem for end in (JOURNAL, SEALED) for file in folder.glob(_PREFIX + "*" + end)
        }
        self._names = sorted(names)
        allow_open_files(len(self._names))
        self._files = [_open(folder / name) for name in self._names]
        self._ends = list(itertools.accumulate(map(len, self._files)))
        self.unreadable = sum(getattr(file, "unreadable", 0) for file in self._files)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> LoggedRequest:
        """Reads a record. Raises ValueError with the file's name where it is damaged."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        file = bisect.bisect_right(self._ends, index)
        inside = index - self._ends[file] + len(self._files[file])
        try:
            return LoggedRequest.unpack(self._files[file][inside])
        except Exception as error:  # ArrayRecord has no error class of its own
            raise ValueError(
                f"{self.file_of(index)}: record {inside} is damaged ({error}); move the file away "
                "to read the others"
            ) from error

    def file_of(self, index: int) -> pathlib.Path:
        """The file that holds a record, without its ending, which changes when it is closed."""
        return self.folder / self._names[bisect.bisect_right(self._ends, index)]


def _open(path: pathlib.Path) -> Sequence[bytes] | Journal:
    """A file of records; the writer may close it while this opens it."""
    sealed = path.with_suffix(SEALED)
    if not sealed.exists():
        try:
            return Journal(path.with_suffix(JOURNAL))
        except FileNotFoundError:
            pass
    try:
        source: Sequence[bytes] = ArrayRecordDataSource(str(sealed))
        return source
    except Exception as error:  # ArrayRecord has no error class of its own
        raise ValueError(f"{sealed}: damaged ({error}); move it away to read the others") from error


def _read_info(path: pathlib.Path) -> LogInfo:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged, not JSON ({error})") from error
    if not isinstance(data, Mapping) or _KEY not in data:
        raise ValueError(f"{path}: no log of a server; there is no {_KEY!r} in it")
    if data[_KEY] != VERSION:
        raise ValueError(
            f"{path}: a log of version {data[_KEY]!r}, this package reads {VERSION}; use the "
            "package that wrote it"
        )
    names = tuple(field.name for field in dataclasses.fields(LogInfo))
    check_keys(str(path), data, (_KEY, *names))
    return LogInfo(**{name: data[name] for name in names})
