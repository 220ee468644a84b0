"""`rt2 act`: one question to a policy server, and its answer in words."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from rt2_jax.actions.space import ActionField


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds `rt2 act`."""
    parser = subparsers.add_parser(
        "act", description="Sends a picture and an instruction to a server, prints the action."
    )
    parser.add_argument("url", help="ws://HOST:PORT")
    parser.add_argument("--image", required=True, type=pathlib.Path, help="of the first view")
    parser.add_argument("--instruction", required=True, help="what to do, in words")
    parser.add_argument(
        "--state", type=float, nargs="+", help="the robot's numbers, where the policy reads them"
    )
    parser.add_argument("--token-file", type=pathlib.Path, help="of a server that asks for one")
    parser.add_argument("--budget-ms", type=float, help="refuse an answer that takes longer")
    parser.add_argument(
        "--jpeg", type=int, metavar="QUALITY", help="send the picture as JPEG, of 1 to 100"
    )
    parser.add_argument(
        "--ca", type=pathlib.Path, help="certificates that a wss:// server's is signed by"
    )
    parser.add_argument(
        "--samples", type=int, help="draw so many actions, with their log-probabilities"
    )


def run(args: argparse.Namespace) -> int | None:
    """Asks once and prints."""
    import numpy as np

    from rt2_jax.actions.policy import Observation
    from rt2_jax.actions.sampling import Sampling
    from rt2_jax.client import PolicyServerError, RemotePolicy
    from rt2_jax.data.image import decode_image

    token = None
    if args.token_file is not None:
        token = _content("--token-file", args.token_file).decode().strip()
    image = decode_image(_content("--image", args.image), str(args.image))
    sampling = None if args.samples is None else Sampling(num_samples=args.samples)
    with RemotePolicy(
        args.url,
        token,
        budget_ms=args.budget_ms,
        pictures="raw" if args.jpeg is None else f"jpeg:{args.jpeg}",
        ca=None if args.ca is None else str(args.ca),
    ) as policy:
        views, wanted = policy.metadata["views"], policy.metadata.get("state_fields", [])
        if wanted and len(args.state or ()) != len(wanted):
            raise ValueError(
                f"--state: found {len(args.state or ())} numbers, and the policy reads "
                f"{len(wanted)}: {', '.join(wanted)}"
            )
        try:
            state = None if args.state is None else np.array(args.state, np.float32)
            seen = Observation({views[0]: image}, args.instruction, state)
            result = policy.infer(seen, sampling=sampling)
        except PolicyServerError as error:
            raise ValueError(str(error)) from error
        fields = policy.action_space.fields
    if result.get("plan"):
        print(f"plan: {result['plan']}")
    if "samples" in result:
        samples = result["samples"]
        for number, (actions, score) in enumerate(
            zip(samples["actions"], samples["scores"], strict=True)
        ):
            print(f"sample {number}, log-probability {score:.2f}")
            _print_actions(fields, actions)
    else:
        _print_actions(fields, result["actions"])
    timing = result["server_timing"]
    print(
        f"infer {timing['infer_ms']:.1f} ms, queue {timing['queue_ms']:.1f} ms, "
        f"log-probability {result.get('score', float('nan')):.2f}"
    )
    for warning in result["warnings"]:
        print(f"warning: {warning}")
    return 0


def _content(flag: str, path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{flag} {path}: {error.strerror}") from error


def _print_actions(fields: Sequence[ActionField], actions: np.ndarray) -> None:
    for number, action in enumerate(actions):
        if len(actions) > 1:
            print(f"step {number}")
        for field, value in zip(fields, action, strict=True):
            unit = "" if field.unit == "1" else f" {field.unit}"
            meaning = ""
            if field.name == "terminate":
                meaning = "  go on" if value else "  terminate: the task is done"
            print(f"  {field.name:<18} {value:+.4f}{unit}{meaning}")
