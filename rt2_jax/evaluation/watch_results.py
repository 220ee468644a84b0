"""What a watcher found: a line for each checkpoint, and which is the best of them."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rt2_jax.actions.identity import differences
from rt2_jax.training.logs import TensorBoardLog

FOLDER = "eval"
BEST_FILE = "best.json"
SECONDS = "seconds"
_NO_METRICS = ("step", SECONDS)
DEFAULT_BEST = ("closed_loop/success", "mean/token_accuracy", "mean/exact_answers")
"""What the best checkpoint is best in: the first of these that there is."""


class WatchResults:
    """`<model_dir>/eval/<name>.jsonl` with `{"step": N, name: number, ..., "seconds": S}` a line.

    Beside it stand `<name>.json`, what is evaluated; `<name>/<step>.json`, the whole reports;
    `best.json`, `{"metric", "mode", "step", "value"}` of the best line; and the same numbers as
    event files in `<model_dir>/tensorboard/eval/<name>`.

    Args:
      model_dir: of the run.
      name: of this evaluation.
      settings: what is evaluated, plain JSON; equal in all starts of one name.
      best: the metric that decides; None for the first of `DEFAULT_BEST` that there is.
      mode: `max` or `min`; None: `min` for errors, else `max`.

    Raises:
      OSError: another process writes these results, or they cannot be written.
      ValueError: the name is no file's name, the results are damaged, or of other settings.
    """

    def __init__(
        self,
        model_dir: pathlib.Path,
        name: str,
        settings: Mapping[str, Any],
        best: str | None = None,
        mode: str | None = None,
    ) -> None:
        if not name or name != pathlib.PurePath(name).name or f"{name}.json" == BEST_FILE:
            raise ValueError(f"name: found {name!r}, expected a file's name, not 'best'")
        self.folder = model_dir / FOLDER
        self.path = self.folder / f"{name}.jsonl"
        self._reports = self.folder / name
        self._events = model_dir / "tensorboard" / FOLDER / name
        self._best, self._mode = best, mode
        self._log: TensorBoardLog | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check_settings(settings)
            self.lines = self._read()
            if self.lines:  # it may have been stopped between the two files
                last = self.lines[-1].items()
                self._write_best(self.best_metric({k: v for k, v in last if k not in _NO_METRICS}))
        except BlockingIOError as error:
            self._file.close()
            raise OSError(
                f"{self.path}: another process writes it; end that, or choose another --name"
            ) from error
        except ValueError:
            self._file.close()
            raise

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        path = self.path.with_suffix(".json")
        wanted = json.loads(json.dumps(settings))
        if path.is_file():
            found = json.loads(path.read_text())
            if found != wanted:
                raise ValueError(
                    f"{path}: its results are of other settings (there, here): "
                    f"{'; '.join(differences(found, wanted))}; choose another --name, or delete "
                    f"{self.path.name} and {path.name}"
                )
        else:
            _write_whole(path, wanted)

    def _read(self) -> list[dict[str, Any]]:
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):  # a line that was cut short
            os.truncate(self.path, whole)
        lines = []
        for number, line in enumerate(data[:whole].decode().splitlines(), 1):
            try:
                found = json.loads(line)
                found["step"] = int(found["step"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.path}, line {number}: damaged ({error}); delete the line to have its "
                    "checkpoint evaluated again, if it is still there"
                ) from None
            lines.append(found)
        return lines

    @property
    def done(self) -> set[int]:
        """Steps whose checkpoints are evaluated."""
        return {line["step"] for line in self.lines}

    def add(
        self, step: int, numbers: Mapping[str, float], seconds: float, report: Mapping[str, Any]
    ) -> bool:
        """Writes an evaluation; it is on the disk when this returns.

        Returns:
          Whether it is the best until now.

        Raises:
          ValueError: there is no such number as the one that the best is chosen by.
        """
        metric = self.best_metric(numbers)
        if self._log is None:
            self._log = TensorBoardLog(self._events, max(self.done, default=step - 1))
        self._log.write(step, numbers)
        self._reports.mkdir(exist_ok=True)
        _write_whole(self._reports / f"{step}.json", report)
        line = {"step": step, **numbers, SECONDS: round(seconds, 3)}
        self._file.write(f"{json.dumps(line, allow_nan=False)}\n".encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.lines.append(line)
        return self._write_best(metric) == step

    def _write_best(self, metric: str | None) -> int | None:
        """Writes down which is the best; returns its step, None where nothing tells."""
        if metric is None:
            return None
        best = self._best_line(metric)
        mode = self._mode_of(metric)
        data = {"metric": metric, "mode": mode, "step": best["step"], "value": best[metric]}
        _write_whole(self.folder / BEST_FILE, data)
        return int(best["step"])

    def best_metric(self, numbers: Mapping[str, float]) -> str | None:
        """What the best is chosen by; None where nothing was asked for and nothing suits.

        Raises:
          ValueError: what was asked for is not among these numbers.
        """
        if self._best is None:
            return next((name for name in DEFAULT_BEST if name in numbers), None)
        if self._best not in numbers:
            raise ValueError(
                f"--best: found {self._best!r}, expected one of {', '.join(sorted(numbers))}"
            )
        return self._best

    def _mode_of(self, metric: str) -> str:
        return self._mode or ("min" if "error" in metric else "max")

    def _best_line(self, metric: str) -> dict[str, Any]:
        """The earliest of equals."""
        sign = -1 if self._mode_of(metric) == "max" else 1
        there: Sequence[dict[str, Any]] = [line for line in self.lines if metric in line]
        return min(there, key=lambda line: (sign * line[metric], line["step"]))

    def close(self) -> None:
        """Lets others write."""
        self._file.close()

    def __enter__(self) -> WatchResults:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _write_whole(path: pathlib.Path, data: Any) -> None:
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n")
    unfinished.replace(path)
