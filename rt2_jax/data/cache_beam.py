"""Caches the shards of a task's source on Apache Beam: on this machine, or on many by Dataflow."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

import seqio

from rt2_jax.data.cache_shard import (
    CacheRunner,
    CacheWork,
    cache_shard,
    finished_shard,
    write_atomically,
)
from rt2_jax.data.task_modules import open_task

_REPORT_S = 2.0


def on_beam(runner: str, flags: Sequence[str], modules: Sequence[str]) -> CacheRunner:
    """Who caches the shards: a pipeline of Apache Beam that has an element for each.

    The data and the cache must have the same absolute paths on all workers and here, and the
    package and the modules must be installed there.

    Args:
      runner: Beam's, e.g. `DirectRunner` or `DataflowRunner`.
      flags: further options of Beam, e.g. `--project=my-project`.
      modules: those that register tasks; they are imported by each worker.

    Raises:
      ValueError: Apache Beam is not installed, or (when shards are cached) knows no such runner.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ModuleNotFoundError as error:
        if error.name != "apache_beam":
            raise
        raise ValueError(
            f"runner {runner!r} needs Apache Beam: pip install 'rt2-jax[beam]'"
        ) from error

    def run(task: seqio.Task, work: CacheWork, report: Callable[[int], None]) -> None:
        del task  # it cannot be sent; the workers find it by its name
        pipeline = beam.Pipeline(runner, PipelineOptions(list(flags)))
        _ = (
            pipeline
            | "shards" >> beam.Create(range(len(work.shards)))
            | "each on its own" >> beam.Reshuffle()
            | "cache" >> beam.Map(_cache_one, work, tuple(modules))
        )
        try:
            with _reports(work, report):
                state = pipeline.run().wait_until_finish()
        except Exception as error:
            if failure := _failure(work):
                raise failure from error
            raise
        if state is not None and state != "DONE":
            raise _failure(work) or ChildProcessError(
                f"the pipeline on {runner} ended as {state}; the finished source shards are kept: "
                "run it again to continue"
            )

    return run


def _cache_one(shard: int, work: CacheWork, modules: Sequence[str]) -> None:
    """What a worker does with an element of the pipeline."""
    try:
        cache_shard(open_task(work, modules), work, shard)
    except (ValueError, OSError, KeyError) as error:
        # Beam would hand on a page of text in which this is somewhere.
        with contextlib.suppress(OSError):
            write_atomically(work.failure(shard), str(error))
        raise


def _failure(work: CacheWork) -> ValueError | None:
    """What was wrong with the first shard that failed, if a worker could say so."""
    for shard in range(len(work.shards)):
        file = work.failure(shard)
        if file.exists() and finished_shard(work, shard) is None:
            return ValueError(file.read_text(encoding="utf-8"))
    return None


@contextlib.contextmanager
def _reports(work: CacheWork, report: Callable[[int], None]) -> Iterator[None]:
    """Reports the steps of finished shards from time to time."""
    done = threading.Event()

    def watch() -> None:
        steps = [0] * len(work.shards)
        while not done.wait(_REPORT_S):
            for shard, found in enumerate(steps):
                with contextlib.suppress(OSError, ValueError):  # of a network's file system
                    if not found and (summary := finished_shard(work, shard)):
                        steps[shard] = summary.steps
            report(sum(steps))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
