"""Flags of `rt2 serve` for how requests share the model, and which actions may leave."""

from __future__ import annotations

import argparse
import pathlib
from typing import Any


def add_sharing_flags(parser: argparse.ArgumentParser) -> None:
    """Adds them; docs/batching.md says what they mean."""
    parser.add_argument(
        "--max-queue",
        type=int,
        help="requests that may wait; more are refused as BUSY (default: two seconds of work)",
    )
    parser.add_argument(
        "--max-wait",
        type=float,
        metavar="SECONDS",
        help="how long a batch may wait for robots that are expected; 0: never (default: as long "
        "as that pays by the measured times)",
    )
    parser.add_argument(
        "--model-timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="after which a silent model is given up, and /readyz says so (default: %(default)g)",
    )
    parser.add_argument(
        "--limits",
        type=pathlib.Path,
        help="JSON: field -> max_abs and max_change of a step, in its unit; actions beyond are "
        "refused as UNSAFE",
    )
    parser.add_argument(
        "--hold-back",
        action="store_true",
        help="actions beyond --limits are brought back to them instead, which the answer says",
    )
    parser.add_argument(
        "--min-confidence",
        type=float,
        help="answers below it say so, where the policy gives its confidence",
    )
    parser.add_argument(
        "--refuse-low-confidence", action="store_true", help="and are refused as UNSAFE"
    )


def sharing_options(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags say, as fields of `ServerOptions`.

    Raises:
      OSError, TypeError, KeyError, ValueError: the limits cannot be read, or flags need others.
    """
    from rt2_jax.serving.action_checks import Safety, read_limits

    if args.hold_back and args.limits is None:
        raise ValueError("--hold-back: found no --limits that actions could be brought back to")
    if args.refuse_low_confidence and args.min_confidence is None:
        raise ValueError("--refuse-low-confidence: found no --min-confidence, expected a number")
    limits = {} if args.limits is None else read_limits(args.limits)
    return {
        "max_queue": args.max_queue,
        "max_wait_s": args.max_wait,
        "model_timeout_s": args.model_timeout,
        "safety": Safety(limits, args.hold_back, args.min_confidence, args.refuse_low_confidence),
    }
