"""Runs the plan: stage by stage, each once, from where it was interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from rt2_jax.actions.identity import content_hash
from rt2_jax.demo.plan import SKILLS, DemoPlan, Policy, Stage, stages
from rt2_jax.demo.report import write_report

_SERVER_STARTS_S = 180.0


def run_demo(plan: DemoPlan) -> pathlib.Path:
    """Does what is missing of the plan and writes the report.

    Args:
      plan: `short_plan` or `long_plan`.

    Returns:
      The report.

    Raises:
      ChildProcessError: a command failed; its last words and its log are named.
      ValueError: the folder holds a demo of another plan.
    """
    folder = plan.folder
    folder.mkdir(parents=True, exist_ok=True)
    todo = stages(plan)
    _check_plan(folder, todo)
    _print_plan(plan, todo)
    for number, stage in enumerate(todo, 1):
        marker = folder / "stages" / f"{stage.name}.json"
        title = f"[{number}/{len(todo)}] {stage.name}: {stage.text}"
        if marker.is_file():
            print(f"{title}: done before", flush=True)
            continue
        left = sum(each.minutes for each in todo[number - 1 :])
        print(f"\n{title} (about {stage.minutes:g} min; {left:g} min left in all)", flush=True)
        begin = time.monotonic()
        for command in stage.commands:
            _run(command, folder / "logs" / f"{stage.name}.log")
        _evaluate(plan, stage.policies)
        marker.parent.mkdir(exist_ok=True)
        marker.write_text(json.dumps({"seconds": round(time.monotonic() - begin, 1)}) + "\n")
    report = write_report(plan)
    return report


def _check_plan(folder: pathlib.Path, todo: Sequence[Stage]) -> None:
    """Stages are skipped by name, so another plan needs another folder."""
    file, found = folder / "plan.json", content_hash(_commands(todo))
    if file.is_file():
        if json.loads(file.read_text())["hash"] != found:
            raise ValueError(
                f"{folder} holds a demo with other sizes; choose another folder (--out), or "
                "delete this one"
            )
        return
    file.write_text(json.dumps({"hash": found, "stages": _commands(todo)}, indent=1) + "\n")


def _commands(todo: Sequence[Stage]) -> list[Any]:
    return [
        [stage.name, [list(command) for command in stage.commands]]
        + [[policy.name, policy.source, policy.swapped] for policy in stage.policies]
        for stage in todo
    ]


def _print_plan(plan: DemoPlan, todo: Sequence[Stage]) -> None:
    total = sum(stage.minutes for stage in todo)
    print(f"The plan, about {total:g} minutes on two cores; everything goes to {plan.folder}/.")
    print("Ctrl-C stops it; the same command goes on from there.")
    for number, stage in enumerate(todo, 1):
        print(f"  {number}. {stage.name:<8} {stage.minutes:>4g} min  {stage.text}")
    sys.stdout.flush()


def _rt2(command: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "rt2_jax.cli.main", *command]


def _environment() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"}


def _run(command: Sequence[str], log: pathlib.Path) -> None:
    """Runs a command of `rt2`, shows its progress, keeps everything in the log.

    Raises:
      ChildProcessError: it failed.
    """
    print(f"  $ rt2 {' '.join(command)}", flush=True)
    log.parent.mkdir(exist_ok=True)
    last: list[str] = []
    with log.open("a") as file:
        process = subprocess.Popen(
            _rt2(command),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=_environment(),
        )
        assert process.stdout is not None
        try:
            shown = 0.0
            for line in process.stdout:
                file.write(line)
                last = [*last[-7:], line.rstrip()]
                if _is_result(line):
                    print(f"    {line.rstrip()}", flush=True)
                elif _is_progress(line) and time.monotonic() - shown > 5:
                    shown = time.monotonic()
                    print(f"    {line.rstrip()}", flush=True)
            status = process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)  # a training run saves before it ends
            process.wait()
            raise
    if status:
        words = "\n    ".join(last)
        raise ChildProcessError(
            f"rt2 {command[0]} ended with status {status}; its log is {log}:\n    {words}"
        )


def _is_progress(line: str) -> bool:
    return line.startswith("step ") or " done" in line or ("%" in line and "interval" not in line)


def _is_result(line: str) -> bool:
    """Of a policy's row in the table that an evaluation ends with: `65/100 = 65%`."""
    return "% to " in line and " = " in line


def _evaluate(plan: DemoPlan, policies: Sequence[Policy]) -> None:
    log = plan.folder / "logs" / "drive.log"
    results = plan.folder / "results"
    results.mkdir(exist_ok=True)
    for policy in policies:
        with _source(policy, plan.folder) as source:
            command = ["eval", "closed-loop", source, "--name", policy.name]
            command += ["--skill", *SKILLS, "--episodes", str(plan.test_episodes)]
            command += ["--out", str(results / f"{policy.name}.jsonl")]
            command += ["--json", str(results / f"{policy.name}.json")]
            command += ["--recording", str(_recording(plan.folder))]
            if policy.swapped:
                command += ["--instruction", "swapped"]
            if policy.film:
                command += ["--video", str(plan.folder / "films")]
            _run(command, log)


def _recording(folder: pathlib.Path) -> pathlib.Path:
    return folder / "data" / "rt2_tabletop" / "2.0.0"


@contextlib.contextmanager
def _source(policy: Policy, folder: pathlib.Path) -> Iterator[str]:
    """What to evaluate: a name, or the URL of a server that runs while this lasts."""
    if not policy.served:
        yield policy.source
        return
    log = folder / "logs" / "serve.log"
    log.parent.mkdir(exist_ok=True)
    command = ("serve", policy.source, "--port", "0")
    print(f"  $ rt2 {' '.join(command)} &", flush=True)
    with log.open("a") as errors:
        process = subprocess.Popen(
            _rt2(command), stdout=subprocess.PIPE, stderr=errors, text=True, env=_environment()
        )
        try:
            yield _url(process, log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _url(process: subprocess.Popen, log: pathlib.Path) -> str:
    """What the server prints when its port is open."""
    timer = threading.Timer(_SERVER_STARTS_S, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            words = line.split()
            if words and words[-1].startswith("ws://"):
                return words[-1]
    finally:
        timer.cancel()
    raise ChildProcessError(f"rt2 serve did not start; its log is {log}")
