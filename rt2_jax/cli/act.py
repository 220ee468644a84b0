"""`rt2 act`: one question to a policy server, and its answer in words."""

from __future__ import annotations

import argparse
import pathlib


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


def run(args: argparse.Namespace) -> int | None:
    """Asks once and prints."""
    import numpy as np

    from rt2_jax.actions.policy import Observation
    from rt2_jax.client import PolicyServerError, RemotePolicy
    from rt2_jax.data.image import decode_image

    token = None if args.token_file is None else args.token_file.read_text().strip()
    image = decode_image(args.image.read_bytes(), str(args.image))
    with RemotePolicy(args.url, token, budget_ms=args.budget_ms) as policy:
        views = policy.metadata["views"]
        try:
            state = None if args.state is None else np.array(args.state, np.float32)
            result = policy.infer(Observation({views[0]: image}, args.instruction, state))
        except PolicyServerError as error:
            raise ValueError(str(error)) from error
        fields = policy.action_space.fields
    if result.get("plan"):
        print(f"plan: {result['plan']}")
    for number, action in enumerate(result["actions"]):
        if len(result["actions"]) > 1:
            print(f"step {number}")
        for field, value in zip(fields, action, strict=True):
            unit = "" if field.unit == "1" else f" {field.unit}"
            meaning = ""
            if field.name == "terminate":
                meaning = "  go on" if value else "  terminate: the task is done"
            print(f"  {field.name:<18} {value:+.4f}{unit}{meaning}")
    timing = result["server_timing"]
    print(
        f"infer {timing['infer_ms']:.1f} ms, queue {timing['queue_ms']:.1f} ms, "
        f"log-probability {result.get('score', float('nan')):.2f}"
    )
    for warning in result["warnings"]:
        print(f"warning: {warning}")
    return 0
