"""A server's request log as an RLDS data set: what robots saw, and the actions they were given."""

from __future__ import annotations

import fnmatch
import itertools
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from rt2_jax.actions.identity import differences
from rt2_jax.actions.space import ActionSpace
from rt2_jax.data.log_episodes import EpisodeCutter, LoggedEpisode
from rt2_jax.data.prompt_template import slot_names
from rt2_jax.data.request_log import LoggedRequest, RequestLog, find_logs
from rt2_jax.data.rlds import image_key
from rt2_jax.data.rlds_folder import rlds_folder, write_rlds_folder
from rt2_jax.data.task_info import RobotInfo, TaskInfo

_SAME = ("embodiment", "action_space", "views", "state_fields", "prompt")
"""What all logs of a data set must agree in."""


def slot_column(slot: str) -> str:
    """The step's field that holds the value of a slot of the prompt."""
    return f"slot_{slot}"


@dataclass(frozen=True)
class ImportedLog:
    """What was made of a log.

    Attributes:
      directory: of the data set.
      info: the task that it can be registered as.
      episodes: how many there are.
      steps: how many there are.
      left_out: of requests that became no steps: why -> how many; see `EpisodeCutter`. `short`:
        answered ones of episodes that are too short.
      ended: why episodes ended -> how many.
      chunk: how many actions the longest answer had.
      unreadable: bytes of records that were cut off when a server was killed.
      unnamed_state: states were sent that the data set leaves out, since some requests had none.
      plans: whether any answer has a plan.
    """

    directory: pathlib.Path
    info: TaskInfo
    episodes: int
    steps: int
    left_out: Mapping[str, int]
    ended: Mapping[str, int]
    chunk: int
    unreadable: int
    unnamed_state: bool
    plans: bool


def import_log(
    log_dir: str | pathlib.Path,
    root: str | pathlib.Path,
    *,
    name: str = "request_log",
    sessions: Sequence[str] = (),
    gap_s: float = 10.0,
    min_steps: int = 2,
    shard_episodes: int = 100,
    report: Callable[[int], None] = lambda steps: None,
) -> ImportedLog:
    """Writes the episodes of a log as `root/<name>/1.0.0`, whole or not at all.

    Args:
      log_dir: of `rt2 serve --log-dir`, with the logs of all its starts; or one of these.
      root: folder of all data sets.
      name: of the data set.
      sessions: patterns such as `arm-1/*` of those that are wanted; () for all.
      gap_s: a longer time between two requests of a session ends an episode.
      min_steps: shorter episodes are left out.
      shard_episodes: to a file.
      report: called with the number of steps after each.

    Raises:
      FileNotFoundError: no log. FileExistsError: the data set is there already.
      OSError: another process is writing it.
      ValueError: logs of different robots, a damaged file, a bad option, or nothing to write.
    """
    if not gap_s > 0 or min_steps < 1:
        raise ValueError(f"found a gap of {gap_s} s and {min_steps} steps, expected over 0 and 1")
    folders = find_logs(log_dir)
    final = rlds_folder(root, name, f"name {name!r}")
    if final.exists():
        raise FileExistsError(f"{final} is there already; delete it to write it again")
    logs = [RequestLog(folder) for folder in folders]
    robot = _common_robot(logs)
    found: list[tuple[RequestLog, LoggedEpisode]] = []
    left_out: Counter[str] = Counter()
    for log in logs:
        cutter = _cut(log, robot.action_space, gap_s, sessions)
        left_out += cutter.counts
        for episode in cutter.episodes:
            if len(episode.steps) < min_steps:
                left_out["short"] += len(episode.steps)
            else:
                found.append((log, episode))
    if not found:
        raise ValueError(
            f"{log_dir}: no episode of {min_steps} steps in {len(logs)} logs with "
            f"{sum(map(len, logs))} records; left out: {dict(left_out)}"
        )
    episodes = [episode for _, episode in found]
    fields, unnamed = _state_fields(robot.state_fields, episodes)
    metadata = logs[0].info.metadata
    sizes = set[tuple[int, int]]().union(*(episode.picture_sizes for episode in episodes))
    info = TaskInfo(
        name,
        metadata["prompt"],
        tuple(metadata["views"]),
        sizes.pop() if len(sizes) == 1 else None,
        RobotInfo(robot.embodiment, robot.action_space, fields),
    )
    result = ImportedLog(
        directory=final,
        info=info,
        episodes=len(found),
        steps=sum(len(episode.steps) for episode in episodes),
        left_out=+left_out,
        ended=Counter(episode.ended for episode in episodes),
        chunk=max(max(episode.chunks) for episode in episodes),
        unreadable=sum(log.unreadable for log in logs),
        unnamed_state=unnamed,
        plans=any(episode.plans for episode in episodes),
    )
    count = itertools.count(1)
    write_rlds_folder(
        final,
        _features(info),
        {"train": (_episode(*each, info, lambda: report(next(count))) for each in found)},
        metadata={"rt2_task": info.to_json(), "rt2_request_log": _origin(logs, result)},
        description=f"{len(found)} episodes of {robot.embodiment}, as a policy server answered "
        f"them. What the numbers mean stands in metadata.json.\n{robot.action_space.describe()}",
        shard_episodes=shard_episodes,
    )
    return result


def _common_robot(logs: Sequence[RequestLog]) -> RobotInfo:
    """The robot of all logs."""
    first = logs[0]
    wanted = ("embodiment", "action_space", "views", "prompt")
    missing = [key for key in wanted if key not in first.info.metadata]
    if missing:
        raise ValueError(
            f"{first.folder}: its server named no {missing[0]}, so nothing says what was asked and "
            "what the actions mean; the policy's metadata must have it"
        )
    expected = {key: first.info.metadata.get(key) for key in _SAME}
    for log in logs[1:]:
        lines = differences({key: log.info.metadata.get(key) for key in _SAME}, expected)
        if lines:
            raise ValueError(
                f"{log.folder} and {first.folder} are logs of different robots or tasks: "
                f"{'; '.join(lines)}. Import each folder by itself"
            )
    return RobotInfo(
        str(expected["embodiment"]),
        ActionSpace.from_json(expected["action_space"]),
        tuple(expected["state_fields"] or ()),
    )


def _cut(
    log: RequestLog, space: ActionSpace, gap_s: float, sessions: Sequence[str]
) -> EpisodeCutter:
    def keep(session: str) -> bool:
        return not sessions or any(fnmatch.fnmatchcase(session, each) for each in sessions)

    names = space.names
    terminate = names.index("terminate") if "terminate" in names else None
    cutter = EpisodeCutter(terminate=terminate, gap_s=gap_s, keep=keep)
    ended = log.info.ended
    cutter.add_all((log[i] for i in range(len(log))), ended["requests"] if ended else None)
    return cutter


def _state_fields(
    named: tuple[str, ...], episodes: Sequence[LoggedEpisode]
) -> tuple[tuple[str, ...], bool]:
    """Names of the state's numbers, and whether states are left out.

    A policy that does not read the state does not name it, but robots may send it all the same.
    """
    sizes = set[int]().union(*(episode.state_sizes for episode in episodes))
    if named:
        return named, False
    if len(sizes) > 1:
        return (), True
    return tuple(f"state_{number}" for number in range(sizes.pop())), False


def _features(info: TaskInfo) -> tfds.features.FeaturesDict:
    assert info.robot is not None
    feature, space = tfds.features, info.robot.action_space
    height, width = info.image_size or (None, None)
    observation: dict[str, Any] = {
        image_key(view): feature.Image(
            shape=(height, width, 3), encoding_format="png", doc=f"view {view!r}, as it was sent"
        )
        for view in info.views
    }
    if info.robot.state_fields:
        fields = info.robot.state_fields
        observation["state"] = feature.Tensor(
            shape=(len(fields),), dtype=np.float32, doc=", ".join(fields)
        )
    steps = {
        "observation": observation,
        "action": feature.Tensor(
            shape=(space.dimension,),
            dtype=np.float32,
            doc=f"the first one that was answered; {space.describe()}",
        ),
        "language_instruction": feature.Text(doc="as it was sent"),
        "plan": feature.Text(doc="what the policy wrote before the action"),
        # An example of RLDS has no 64-bit floats.
        "time_us": feature.Scalar(dtype=np.int64, doc="when it was asked, microseconds since 1970"),
        "is_first": feature.Scalar(dtype=np.bool_),
        "is_last": feature.Scalar(dtype=np.bool_, doc="the last that is known"),
        "is_terminal": feature.Scalar(dtype=np.bool_, doc="the policy said so by `terminate`"),
    }
    for slot in slot_names(info.prompt):
        steps[slot_column(slot)] = feature.Text(doc=f"value of the prompt's {slot!r}, or empty")
    texts = ("episode_id", "session", "ended", "checkpoint", "weights", "server_version", "log")
    return feature.FeaturesDict(
        {
            "steps": feature.Dataset(steps),
            "episode_metadata": {name: feature.Text() for name in texts},
        }
    )


def _episode(
    log: RequestLog, episode: LoggedEpisode, info: TaskInfo, report: Callable[[], None]
) -> dict[str, Any]:
    assert info.robot is not None
    served = log.info.metadata
    file = log.file_of(episode.steps[0])
    last = len(episode.steps) - 1
    steps = []
    for index, place in enumerate(episode.steps):
        terminal = index == last and episode.ended == "terminate"
        steps.append({**_step(log[place], info), **_flags(index == 0, index == last, terminal)})
        report()
    return {
        "steps": steps,
        "episode_metadata": {
            "episode_id": f"{log.folder.name}/{episode.steps[0]}/{episode.session}",
            "session": episode.session,
            "ended": episode.ended,
            "checkpoint": str(served.get("checkpoint", "")),
            "weights": str(served.get("weights", "")),
            "server_version": log.info.server_version,
            "log": f"{log.folder.name}/{file.name}",
        },
    }


def _flags(first: bool, last: bool, terminal: bool) -> dict[str, bool]:
    return {"is_first": first, "is_last": last, "is_terminal": terminal}


def _step(request: LoggedRequest, info: TaskInfo) -> dict[str, Any]:
    assert info.robot is not None and request.actions is not None
    observation: dict[str, Any] = {image_key(view): request.pictures[view] for view in info.views}
    if info.robot.state_fields:
        observation["state"] = request.state
    text, slots = request.instruction, {}
    if names := slot_names(info.prompt):
        text, *lines = text.split("\n")
        given = dict(_slot_value(line) for line in lines)
        slots = {slot_column(name): given.get(name, "") for name in names}
    return {
        "observation": observation,
        "action": request.actions[0],
        "language_instruction": text,
        "plan": request.plan,
        "time_us": round(1e6 * request.time),
        **slots,
    }


def _slot_value(line: str) -> tuple[str, str]:
    """As `rt2_jax.data.prompt_template.fill_prompt`, which has accepted it, reads it."""
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def _origin(logs: Sequence[RequestLog], result: ImportedLog) -> dict[str, Any]:
    """What `metadata.json` says of where the episodes come from."""
    return {
        "logs": [
            {
                "log": log.folder.name,
                "records": len(log),
                "server_version": log.info.server_version,
                "checkpoint": log.info.metadata.get("checkpoint"),
                "weights": log.info.metadata.get("weights"),
            }
            for log in logs
        ],
        "left_out": dict(result.left_out),
        "ended": dict(result.ended),
        "actions_per_answer": result.chunk,
    }


def describe_import(result: ImportedLog) -> Iterator[str]:
    """Lines for people: what was written, what was left out, and what to know of it."""
    yield f"{result.directory}: {result.steps} steps of {result.episodes} episodes"
    yield f"ended by: {_listed(result.ended)}"
    if result.left_out:
        yield f"no steps: {_listed(result.left_out)}"
    if result.unreadable:
        yield f"{result.unreadable} bytes of records that were cut off are left out"
    if result.unnamed_state:
        yield "states are left out: some requests had one, some had none or one of another length"
    if result.chunk > 1:
        yield (
            f"warning: answers held up to {result.chunk} actions, of which the first is kept; "
            "between two steps may lie as many of the robot's, so train with a horizon of 1"
        )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
