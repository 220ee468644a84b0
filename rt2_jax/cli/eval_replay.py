"""`rt2 eval replay`: a server's log asked again."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rt2_jax.cli.json_file import check_writable, write_json

if TYPE_CHECKING:
    from rt2_jax.actions.space import ActionSpace
    from rt2_jax.evaluation.replay import ReplayReport

DIFFERENT = 1
"""Exit status where the log's own checkpoint gives other answers."""


def add_replay(verbs: argparse._SubParsersAction) -> None:
    """Adds `rt2 eval replay`."""
    parser = verbs.add_parser(
        "replay",
        help="asks a server's log again: the same tokens, or what another model would have done",
        description="Gives the observations of a log (rt2 serve --log-dir) to a checkpoint, each "
        "session in its order with its resets, and compares with what was answered. Exit status 1 "
        "if the log's own checkpoint answers differently.",
    )
    parser.add_argument("log", help="the folder of --log-dir, or one of the logs in it")
    parser.add_argument("--checkpoint", required=True, help="or a run's folder for its latest")
    parser.add_argument(
        "--other-checkpoint",
        action="store_true",
        help="the checkpoint is not the log's: how far would its actions have been from them?",
    )
    parser.add_argument("--ema", action="store_true", help="as `rt2 serve --ema`")
    parser.add_argument("--task", help="whose prompt and actions; needed where robots differ")
    parser.add_argument("--limit", type=int, help="the first N answers (default: all)")
    parser.add_argument(
        "--first", type=int, default=10, help="differences that are shown (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=8, help="requests at once (default: %(default)s)"
    )
    parser.add_argument("--json", metavar="F", help="writes the results there, too")
    parser.set_defaults(do=_replay)


def _replay(args: argparse.Namespace) -> int:
    from rt2_jax.cli.eval import progress
    from rt2_jax.evaluation.replay import check_same_policy, open_logs, replay
    from rt2_jax.inference.engine import PolicyEngine

    check_writable(args.json)
    for name in ("limit", "batch_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')}: found {value}, expected 1 or more")
    logs = open_logs(args.log)
    which = "ema" if args.ema else "params"
    engine = PolicyEngine.from_checkpoint(args.checkpoint, (args.batch_size,), which)
    task = engine.robot_task(args.task)
    same = check_same_policy(logs, engine, task)
    if not same and not args.other_checkpoint:
        names = sorted({str(log.info.metadata.get("checkpoint")) for log in logs})
        raise ValueError(
            f"{args.log} was written by {', '.join(names)} with other weights than "
            f"{engine.checkpoint}: give that checkpoint (one log if they differ, --ema if it was "
            "served so), or --other-checkpoint to see how far this one's actions are from the log's"
        )
    with progress() as report:
        found = replay(
            engine, logs, task, batch_size=args.batch_size, limit=args.limit, report=report
        )
    print(f"{engine.checkpoint}, {args.log}{'' if same else ' (of another checkpoint)'}\n")
    assert task.robot is not None
    print(_text(found, task.robot.action_space, same, args.first))
    data = {"checkpoint": engine.checkpoint, "log": str(args.log), "same_weights": same}
    write_json(args.json, {**data, **found.to_json()})
    return DIFFERENT if same and found.certain_differences else 0


def _text(found: ReplayReport, space: ActionSpace, same: bool, first: int) -> str:
    from rt2_jax._text_table import aligned

    lines = [
        f"{found.records} records, {found.answered} of them answered and asked again: "
        f"{found.same} equal, {len(found.differences)} different"
    ]
    if found.missing:
        lines.append(f"{found.missing} records are missing: the server left them out of the log")
    if found.uncertain:
        lines.append(
            f"{found.uncertain} came behind a gap, or a request that got no action: the log does "
            "not say which frames the model remembered; differences there are no failure"
        )
    if found.tokens:
        share = found.same_tokens / found.tokens
        lines.append(f"tokens: {found.same_tokens} of {found.tokens} equal ({share:.2%})")
        if same:
            lines.append(f"scores of equal answers differ by {found.score_difference:.1e} at most")
    elif found.answered:
        lines.append("tokens are not compared: the two write actions differently")
    if found.differences and first > 0:
        rows = [["request", "session", "step", "differs"]]
        for each in found.differences[:first]:
            step = "-" if each.step is None else str(each.step)
            doubt = "" if each.certain else " (uncertain)"
            rows.append([f"{each.log}/{each.number}", each.session, step, each.what + doubt])
        lines += ["", aligned(rows)]
    if not same and found.errors:
        fields = found.fields()
        rows = [["field", "unit", "mean difference", "median", "greatest", "equal"]]
        for i, field in enumerate(space.fields):
            numbers = [f"{fields[name][i]:.4g}" for name in ("mean", "median", "greatest")]
            unit = "ratio" if field.unit == "1" else field.unit
            rows.append([field.name, unit, *numbers, f"{fields['equal'][i]:.1%}"])
        lines += ["", aligned(rows)]
    return "\n".join(lines)
