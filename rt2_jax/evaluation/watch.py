"""Evaluates the checkpoints of a run as they come, beside the run, in a process of its own."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping

from rt2_jax.evaluation.checkpoint_scores import BadCheckpointError, Scores
from rt2_jax.evaluation.watch_results import WatchResults
from rt2_jax.training.checkpoints import PREFIX, checkpoint_path
from rt2_jax.training.run_length import read_run_length

ATTEMPTS = 3
"""So often a checkpoint is read before it is given up: a network's file system may lag behind."""


@dataclasses.dataclass(frozen=True)
class WatchConfig:
    """What a watcher waits for.

    Attributes:
      newest: where several checkpoints wait, the newest alone is evaluated; else all, in order.
      once: ends when nothing waits.
      until_step: ends when a checkpoint of this or a later step was evaluated; None for the run's
        last step, which the run writes to `run.json`.
      poll_s: between looks at the folder, seconds.
      patience_s: ends when so long no checkpoint came; None waits for ever.

    Raises:
      ValueError: a number out of its range.
    """

    newest: bool = False
    once: bool = False
    until_step: int | None = None
    poll_s: float = 10.0
    patience_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("until_step", "poll_s", "patience_s"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name}: found {value}, expected a positive number")


@dataclasses.dataclass(frozen=True)
class WatchOutcome:
    """How watching ended.

    Attributes:
      evaluated: how many checkpoints were, in this start.
      bad: steps whose checkpoints could not be read, or gave no finite numbers.
      complete: False where patience ran out.
    """

    evaluated: int
    bad: tuple[int, ...]
    complete: bool


Told = Callable[[int, Mapping[str, float], float, bool], None]
"""Is called with step, numbers, seconds, and whether it is the best until now."""


def whole_checkpoints(model_dir: pathlib.Path) -> dict[int, pathlib.Path]:
    """Step -> path of the run's checkpoints that are whole; none if there is no such folder.

    One that is being written has another name until all of it is there.
    """
    found = {}
    for path in model_dir.glob(f"{PREFIX}_*"):
        number = path.name.removeprefix(f"{PREFIX}_")
        if number.isdigit():
            try:
                found[int(number)] = checkpoint_path(path)
            except FileNotFoundError:
                continue  # it is being deleted
    return dict(sorted(found.items()))


def watch(
    model_dir: pathlib.Path,
    scores: Scores,
    results: WatchResults,
    config: WatchConfig,
    told: Told = lambda step, numbers, seconds, best: None,
    note: Callable[[str], None] = lambda text: None,
) -> WatchOutcome:
    """Evaluates every checkpoint that `results` lacks, and waits for others.

    A checkpoint that is deleted while it is read is passed over, one that cannot be read is tried
    `ATTEMPTS` times and then left; both are said.

    Args:
      model_dir: of the run; it may not be there yet.
      scores: measures a checkpoint.
      results: take what it finds.
      config: order and end.
      told: is told of each checkpoint.
      note: is told what a person should know.

    Raises:
      KeyError, ValueError, OSError: what is asked for cannot be measured of any checkpoint.
    """
    return _Watcher(model_dir, scores, results, config, told, note).run()


class _Watcher:
    def __init__(
        self,
        model_dir: pathlib.Path,
        scores: Scores,
        results: WatchResults,
        config: WatchConfig,
        told: Told,
        note: Callable[[str], None],
    ) -> None:
        self._dir, self._scores, self._results = model_dir, scores, results
        self._config, self._told, self._note = config, told, note
        self._evaluated = 0
        self._failures: dict[int, int] = {}
        self._again: dict[int, float] = {}  # when a checkpoint is tried again
        self._passed: set[int] = set()  # will not be evaluated
        self._bad: list[int] = []

    def run(self) -> WatchOutcome:
        news, waiting = time.monotonic(), False
        while True:
            step = self._next()
            if step is not None:
                self._evaluate(step, self._dir / f"{PREFIX}_{step}")
                news, waiting = time.monotonic(), False
            elif not self._again and (self._config.once or self._ended()):
                return self._outcome(complete=True)
            elif (
                self._config.patience_s is not None
                and time.monotonic() - news > self._config.patience_s
            ):
                self._note(
                    f"no new checkpoint in {self._dir} for {self._config.patience_s:g} s, and "
                    f"{self._expected()}; ends"
                )
                return self._outcome(complete=False)
            else:
                if not waiting:
                    self._note(f"waits for a checkpoint in {self._dir}; {self._expected()}")
                    waiting = True
                time.sleep(self._config.poll_s)

    def _next(self) -> int | None:
        seen = self._results.done | self._passed
        there = [step for step in whole_checkpoints(self._dir) if step not in seen]
        now = time.monotonic()
        ready = [step for step in there if self._again.get(step, now) <= now]
        for step in set(self._again) - set(there):
            del self._again[step]
            self._note(f"step {step}: deleted before it could be read again; not evaluated")
            self._passed.add(step)
        if not self._config.newest:
            return ready[0] if ready else None
        ready = [step for step in ready if step > max(self._results.done, default=-1)]
        if not ready:
            return None
        if len(ready) > 1:
            listed = ", ".join(map(str, ready[:-1]))
            self._note(f"behind: leaves out step {listed}, goes on with the newest")
            self._passed.update(ready[:-1])
        return ready[-1]

    def _evaluate(self, step: int, path: pathlib.Path) -> None:
        start = time.monotonic()
        self._again.pop(step, None)
        try:
            numbers, report = self._scores(path)
        except BadCheckpointError as error:
            self._failed(step, path, error)
            return
        seconds = time.monotonic() - start
        best = self._results.add(step, numbers, seconds, report)
        self._evaluated += 1
        self._told(step, numbers, seconds, best)

    def _failed(self, step: int, path: pathlib.Path, error: BadCheckpointError) -> None:
        if step not in whole_checkpoints(self._dir):
            self._note(
                f"step {step}: {path.name} was deleted while it was read (the run keeps only some "
                "of its checkpoints); not evaluated"
            )
            self._passed.add(step)
            return
        self._failures[step] = self._failures.get(step, 0) + 1
        if self._failures[step] < ATTEMPTS and not self._config.once:
            self._again[step] = time.monotonic() + self._config.poll_s
            self._note(f"step {step}: {error}; tried again in {self._config.poll_s:g} s")
        else:
            self._note(f"step {step}: {error}; left out")
            self._passed.add(step)
            self._bad.append(step)

    def _last_step(self) -> int | None:
        return self._config.until_step or read_run_length(self._dir)

    def _ended(self) -> bool:
        last = self._last_step()
        return last is not None and max(self._results.done | self._passed, default=-1) >= last

    def _expected(self) -> str:
        last = self._last_step()
        if last is None:
            return "its run has not said how long it is (run.json)"
        return f"the last one is that of step {last}"

    def _outcome(self, complete: bool) -> WatchOutcome:
        return WatchOutcome(self._evaluated, tuple(self._bad), complete)
