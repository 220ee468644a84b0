"""Logs requests and answers without ever holding up or failing one."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pathlib
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from rt2_jax.data.journal import JournalWriter, seal_journal
from rt2_jax.data.request_log import (
    LoggedRequest,
    encode_picture,
    journal_file,
    new_log,
    write_info,
)
from rt2_jax.serving.exchange import Exchange
from rt2_jax.serving.metrics import Metrics
from rt2_jax.serving.tasks import BatchPolicy

_LOG = logging.getLogger("rt2_jax.serving")
_SMALL = 4096  # bytes that a waiting exchange counts for besides its pictures and text
_PATIENCE_S = 10.0  # for what waits to be written when the server ends


class RequestLogger:
    """The log of one server: a bounded queue, and a thread that writes.

    A request that finds the queue full is dropped and counted. When the log cannot be written (a
    full disk) it ends, which is said once, and serving goes on. `docs/serving.md` says what is in
    it and what a kill loses.

    Args:
      root: folder of all logs; this one's is made in it at once.
      metadata: of the policy.
      queue_bytes: of pictures that may wait.
      file_bytes: after which a new file is begun.

    Attributes:
      folder: of this log.
      written: how many records are in files.
      dropped: how many are in none.

    Raises:
      OSError: the folder cannot be made or written.
    """

    def __init__(
        self,
        root: str | pathlib.Path,
        metadata: Mapping[str, Any],
        *,
        queue_bytes: int = 256 << 20,
        file_bytes: int = 64 << 20,
    ) -> None:
        self.folder, self._info = new_log(root, metadata)
        self.written = self.dropped = 0
        self._queue_bytes = queue_bytes
        self._file_bytes = file_bytes
        self._files = 0
        self._journal = self._next_journal()
        self._more = threading.Condition()
        self._waiting: deque[tuple[int, Exchange, int]] = deque()
        self._waiting_bytes = 0
        self._offered = 0
        self._open = True
        self._stopped = False
        self._metrics: Metrics | None = None
        self._thread = threading.Thread(target=self._work, name="request-log", daemon=True)

    def start(self, metrics: Metrics) -> None:
        """Begins to write; `metrics` is told how it goes."""
        self._metrics = metrics
        self._thread.start()

    def offer(self, exchange: Exchange) -> None:
        """Takes a request that is over, or drops it; returns at once and never raises."""
        request = exchange.request
        size = _SMALL
        if request is not None:
            size += len(request.observation.instruction)
            size += sum(image.nbytes for image in request.observation.images.values())
        with self._more:
            number = self._offered
            self._offered += 1
            if self._open and not self._stopped:
                if self._waiting_bytes + size <= self._queue_bytes:
                    self._waiting.append((number, exchange, size))
                    self._waiting_bytes += size
                    self._more.notify()
                    return
                if not self.dropped:
                    _LOG.warning(
                        "%s: requests come faster than they can be logged; some are left out",
                        self.folder,
                    )
        self._count_dropped()

    def close(self) -> None:
        """Writes what waits, for ten seconds at most, and ends the log."""
        with self._more:
            self._open = False
            self._more.notify()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_S)
            if self._thread.is_alive():
                _LOG.error("%s: the log's end is not written; the disk is too slow", self.folder)

    def _work(self) -> None:
        while (taken := self._take()) is not None:
            number, exchange = taken
            if self._stopped or not self._write(number, exchange):
                self._count_dropped()
        with contextlib.suppress(OSError):
            self._finish()

    def _write(self, number: int, exchange: Exchange) -> bool:
        """Whether the request is in a file now."""
        try:
            record = _record(number, exchange).pack()
        except Exception:  # one odd answer is no reason to lose the others
            _LOG.exception("%s: request %d cannot be logged", self.folder, number)
            return False
        try:
            self._journal.append(record)
        except Exception as error:
            self._stop(error)
            return False
        self.written += 1
        if self._metrics is not None:
            self._metrics.logged("written")
        if self._journal.size >= self._file_bytes:
            try:
                full, self._journal = self._journal, self._next_journal()
                self._seal(full)
            except Exception as error:
                self._stop(error)
        return True

    def _take(self) -> tuple[int, Exchange] | None:
        """The next one, when there is one; None at the end."""
        with self._more:
            while not self._waiting and self._open:
                self._more.wait()
            if not self._waiting:
                return None
            number, exchange, size = self._waiting.popleft()
            self._waiting_bytes -= size
            return number, exchange

    def _next_journal(self) -> JournalWriter:
        self._files += 1
        return JournalWriter(journal_file(self.folder, self._files - 1))

    def _seal(self, journal: JournalWriter) -> None:
        journal.close()
        seal_journal(journal.path)

    def _stop(self, error: Exception) -> None:
        self._stopped = True
        if self._metrics is not None:
            self._metrics.log_stopped()
        _LOG.error(
            "%s: THE REQUEST LOG HAS STOPPED: %s; serving goes on, and no request is logged until "
            "the server is started again",
            self.folder,
            error,
        )

    def _count_dropped(self) -> None:
        with self._more:
            self.dropped += 1
        if self._metrics is not None:
            self._metrics.logged("dropped")

    def _finish(self) -> None:
        """Closes the last file; if it cannot become an ArrayRecord file, the journal stays."""
        try:
            if self._journal.size:
                self._seal(self._journal)
            else:
                self._journal.close()
                self._journal.path.unlink()
        except OSError as error:
            _LOG.error("%s: %s", self.folder, error)
        ended = {"time": time.time(), "requests": self._offered, "dropped": self.dropped}
        write_info(self.folder, dataclasses.replace(self._info, ended=ended))


class TaskLogs:
    """The logs of a server of several tasks: one for each policy, in a folder of its task's name.

    What is of no task is in each: requests that chose none, and sessions' resets and ends, which a
    replay needs.

    Args:
      root: folder of all.
      policies: by task; names may share one.

    Attributes:
      logs: of the tasks, by the first name of each policy.

    Raises:
      OSError: a folder cannot be made or written.
    """

    def __init__(self, root: str | pathlib.Path, policies: Mapping[str, BatchPolicy]) -> None:
        self.logs: dict[str, RequestLogger] = {}
        self._of: dict[int, RequestLogger] = {}
        for name, policy in policies.items():
            if id(policy) not in self._of:
                folder = pathlib.Path(root) / name.replace("/", "_")
                self._of[id(policy)] = self.logs[name] = RequestLogger(folder, policy.metadata)

    def start(self, metrics: Metrics) -> None:
        """Begins to write."""
        for log in self.logs.values():
            log.start(metrics)

    def offer(self, exchange: Exchange) -> None:
        """As `RequestLogger.offer`, in the log of the request's task."""
        if exchange.task is not None:
            self._of[id(exchange.task.policy)].offer(exchange)
            return
        for log in self.logs.values():
            log.offer(exchange)

    def close(self) -> None:
        """Ends all; each writes what waits, for ten seconds at most."""
        for log in self.logs.values():
            log.close()


def _record(number: int, exchange: Exchange) -> LoggedRequest:
    fields: dict[str, Any] = {
        "number": number,
        "outcome": exchange.outcome,
        "connection": exchange.connection,
        "session": exchange.session,
        "time": exchange.time,
        "clock": exchange.clock,
        "seq": _plain(exchange.seq),
        "instruction": _text(exchange.instruction),
        "error": exchange.error,
        "total_s": exchange.total_s,
        "warnings": exchange.warnings,
    }
    if exchange.request is not None:
        observation = exchange.request.observation
        step = _plain(observation.step)
        fields |= {
            "session": str(observation.session),
            "step": step if isinstance(step, int) else None,
            "instruction": observation.instruction,
            "pictures": {view: encode_picture(image) for view, image in observation.images.items()},
            "state": observation.state,
            "budget_s": exchange.request.budget_s,
        }
    if exchange.answer is not None:
        result = exchange.answer.result
        fields |= {
            "actions": result["actions"],
            "levels": _integers(result.get("levels")),
            "tokens": _integers(result.get("tokens")),
            "plan": str(result.get("plan", "")),
            "score": None if result.get("score") is None else float(result["score"]),
            "queue_s": exchange.answer.queue_s,
            "infer_s": exchange.answer.infer_s,
            "batch_size": exchange.answer.batch_size,
        }
    return LoggedRequest(**fields)


def _plain(value: Any) -> Any:
    """What a client sent as a number of its own, of any type."""
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, (bool, int, float, str, type(None))) else repr(value)[:200]


def _text(value: Any) -> str:
    """The instruction of a request that nobody has checked."""
    return (value if isinstance(value, str) else repr(value))[:1000]


def _integers(value: Any) -> np.ndarray | None:
    return None if value is None else np.asarray(value, np.int32)
