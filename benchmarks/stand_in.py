"""Policies without a model, for figures of everything around it, as a server of their own.

    python -m rt2_jax.benchmarks.stand_in constant [--port 0] [--largest-batch 32]
    python -m rt2_jax.benchmarks.stand_in fixed:20ms

The line that they print when the port is open ends in the URL, as that of `rt2 serve` has it.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rt2_jax.actions.policy import Observation
from rt2_jax.actions.space import rt2_action_space
from rt2_jax.serving.options import ServerOptions
from rt2_jax.serving.server import serve

_SPACE = rt2_action_space(
    "stand_in",
    translation_bound_m=0.05,
    rotation_bound_rad=0.25,
    gripper_polarity="high_is_open",
    control_rate_hz=3,
)
_FIXED = re.compile(r"fixed:(\d+(?:\.\d+)?)ms")


class StandIn:
    """Always gives the same action.

    Args:
      seconds: that every batch takes, whatever its size; 0 for at once.
      action: float32 [1, 8] of the answers; by default the arm stays where it is.
    """

    def __init__(self, seconds: float = 0.0, action: np.ndarray | None = None) -> None:
        self.seconds = seconds
        self.metadata: Mapping[str, Any] = {
            "action_space": _SPACE.to_json(),
            "embodiment": "stand_in",
            "views": ["front"],
            "camera_size": None,
            "prompt": "{text}",
        }
        stay = np.array([[1, 0, 0, 0, 0, 0, 0, 0]], np.float32)
        self._answer = {"actions": stay if action is None else action}

    @classmethod
    def of(cls, name: str) -> StandIn:
        """The one of a name: `constant`, or `fixed:20ms`.

        Raises:
          ValueError: another name.
        """
        if name == "constant":
            return cls()
        if found := _FIXED.fullmatch(name):
            return cls(float(found[1]) / 1000)
        raise ValueError(f"policy: found {name!r}, expected 'constant', or 'fixed:20ms' for 20 ms")

    def reset(self, session: str | None = None) -> None:
        """There is nothing to forget."""

    def infer_batch(self, observations: Sequence[Observation]) -> list[dict[str, Any]]:
        """The same for all."""
        if self.seconds:
            time.sleep(self.seconds)
        return [dict(self._answer) for _ in observations]


def main() -> None:
    """Serves until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("policy", type=StandIn.of)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--largest-batch", type=int, default=32)
    args = parser.parse_args()
    options = ServerOptions(largest_batch=args.largest_batch)
    serve(
        args.policy,
        port=args.port,
        options=options,
        ready=lambda url: print(f"serving a stand-in at {url}", flush=True),
    )


if __name__ == "__main__":
    main()
