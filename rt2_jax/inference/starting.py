"""A policy made ready to answer, and what its start took."""

from __future__ import annotations

import contextlib
import pathlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rt2_jax.inference.engine import EnginePolicy, PolicyEngine
from rt2_jax.inference.exported import ProgramStore
from rt2_jax.inference.placement import Placement
from rt2_jax.inference.robots import robot_policies


@dataclass(frozen=True)
class Start:
    """What a start took.

    Attributes:
      weights_s: seconds for reading the checkpoint.
      programs_s: seconds for reading or compiling programs, and one run of each.
      loaded: programs that an earlier start had compiled; None without a `ProgramStore`.
    """

    weights_s: float
    programs_s: float
    loaded: int | None

    def text(self, seconds: float) -> str:
        """One line for people.

        Args:
          seconds: since the process began.
        """
        cache = "not kept" if self.loaded is None else f"{self.loaded} from the cache"
        return (
            f"ready in {seconds:.1f} s: {self.weights_s:.1f} s weights, "
            f"{self.programs_s:.1f} s programs ({cache})"
        )


def start_policies(
    checkpoint: str | pathlib.Path,
    batch_sizes: Sequence[int],
    which: str = "params",
    task: str | None = None,
    *,
    store: ProgramStore | None = None,
    placement: Placement | None = None,
    weights: str = "stored",
    most_samples: int = 0,
    questions: bool | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, EnginePolicy], Start]:
    """A checkpoint's robots as policies, by task; all programs are compiled and have run once.

    Args:
      checkpoint: a checkpoint, a run's folder for its latest, or `pretrained:NAME`.
      batch_sizes: of the programs.
      which: `params`, or `ema` for their average.
      task: the only one that is meant; None for all.
      store: of programs that earlier starts have compiled.
      placement: on several devices.
      weights, most_samples: as `PolicyEngine.from_checkpoint`.
      questions: whether to compile for questions, too; see `PolicyEngine.warm_up`.
      say: called with what is done now, in words.

    Raises:
      FileNotFoundError, KeyError, TypeError, ValueError: as `PolicyEngine.from_checkpoint`,
        `robot_task` and `warm_up`.
    """
    run = re.sub(r"/checkpoint_\d+/?$", "", str(checkpoint))  # whose checkpoints are alike
    with contextlib.nullcontext() if store is None else store.active(run):
        say("reading weights")
        begin = time.perf_counter()
        engine = PolicyEngine.from_checkpoint(
            checkpoint,
            batch_sizes,
            which,
            weights=weights,
            most_samples=most_samples,
            store=store,
            placement=placement,
        )
        policies = robot_policies(engine, task)
        read = time.perf_counter()
        engine.warm_up(
            questions=questions, say=lambda line: say(f"compiling {engine.checkpoint}: {line}")
        )
        if store is not None:
            store.keep_rest()
        loaded = None if store is None else store.loaded
        return policies, Start(read - begin, time.perf_counter() - read, loaded)
