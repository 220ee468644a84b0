"""Results of episodes: one JSON object a line, in a file that an evaluation can go on from."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from rt2_jax.actions.identity import check_keys
from rt2_jax.sim.rollout import Outcome, Step

IDENTITY = (
    "policy",
    "policy_hash",
    "instruction_mode",
    "cameras",
    "world_hash",
    "render_hash",
    "simulation_version",
)
"""Keys of a line that are equal in all lines of a file."""


@dataclasses.dataclass(frozen=True)
class EpisodeResult:
    """One episode; one line of a results file.

    Attributes:
      skill: what was to be done.
      seed: of the scene.
      success: judged at the last step, on the scene's own target.
      steps: how many actions were executed, the last one (perhaps "terminate") included.
      instruction: what the policy was told.
      ended: "terminated" by the policy, or "out of steps".
      distance: what the judge measures, metres.
      reason: why it is no success; empty if it is one.
      clipped: field -> in how many steps its value was outside its bounds and cut to them.
      limited: motion -> in how many steps the workspace cut it.
      restarts: how often the episode was begun again because the server had gone away.
      wall_s: seconds that the episode took, the last beginning only.
      latency_ms: of each answer, as its caller sees it; an action chunk is one answer.
      actions: all that were executed, native units; they play the episode again.
    """

    skill: str
    seed: int
    success: bool
    steps: int
    instruction: str
    ended: str
    distance: float
    reason: str
    clipped: Mapping[str, int]
    limited: Mapping[str, int]
    restarts: int
    wall_s: float
    latency_ms: tuple[float, ...]
    actions: tuple[tuple[float, ...], ...]

    @property
    def scene(self) -> tuple[str, int]:
        """(skill, seed)."""
        return self.skill, self.seed

    @property
    def outcome(self) -> Outcome:
        """The part that depends on the scene and the actions alone."""
        return Outcome(
            skill=self.skill,
            seed=self.seed,
            instruction=self.instruction,
            success=self.success,
            steps=self.steps,
            terminated=self.ended == "terminated",
            distance=self.distance,
            reason=self.reason,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the latency's percentiles."""
        p50, p95 = np.percentile(self.latency_ms, (50, 95))
        data = dataclasses.asdict(self)
        return {**data, "latency_ms_p50": round(p50, 3), "latency_ms_p95": round(p95, 3)}

    @classmethod
    def from_json(cls, data: Any) -> EpisodeResult:
        """Reads what `to_json` wrote, or a line of a results file.

        Raises:
          KeyError: a key is missing or unknown. TypeError: no JSON object.
        """
        names = tuple(field.name for field in dataclasses.fields(cls))
        check_keys("result", data, names, (*IDENTITY, "latency_ms_p50", "latency_ms_p95"))
        values = {name: data[name] for name in names}
        values["latency_ms"] = tuple(data["latency_ms"])
        values["actions"] = tuple(map(tuple, data["actions"]))
        return cls(**values)


def sum_up(
    end: Outcome, steps: list[Step], *, latency_ms: list[float], wall_s: float, restarts: int
) -> EpisodeResult:
    """The result of an episode that has been played to its end."""
    return EpisodeResult(
        skill=end.skill,
        seed=end.seed,
        success=end.success,
        steps=end.steps,
        instruction=end.instruction,
        ended="terminated" if end.terminated else "out of steps",
        distance=end.distance,
        reason=end.reason,
        clipped=_count(steps, "clipped"),
        limited=_count(steps, "limited"),
        restarts=restarts,
        wall_s=round(wall_s, 4),
        latency_ms=tuple(round(ms, 3) for ms in latency_ms),
        actions=tuple(tuple(map(float, step.action)) for step in steps),
    )


def _count(steps: list[Step], key: str) -> dict[str, int]:
    names = [name for step in steps for name in step.info[key]]
    return {name: names.count(name) for name in sorted(set(names))}


class ResultsFile:
    """A JSONL file of episodes of one configuration; close it, or use it in a `with`.

    A line that was cut short by a killed process is dropped and its episode played again.

    Args:
      path: of the file; it and its folder are made if need be.
      identity: values of the keys `IDENTITY`.

    Raises:
      ValueError: a damaged line, or results of another configuration; nothing is changed.
      OSError: it cannot be written, or another process writes it.
    """

    def __init__(self, path: str | pathlib.Path, identity: Mapping[str, Any]) -> None:
        check_keys("identity of results", identity, IDENTITY)
        self.path, self._identity = pathlib.Path(path), dict(identity)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a+b")
        try:
            self._lock()
            self._file.seek(0)
            data = self._file.read()
            whole = data.rfind(b"\n") + 1
            lines = read_results_text(self.path, data[:whole].decode())
            self._refuse_another_configuration(lines)
            self.results = {
                (line["skill"], line["seed"]): EpisodeResult.from_json(line) for line in lines
            }
            self._file.truncate(whole)
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OSError(f"{self.path}: another evaluation is writing it; wait for it") from error

    def _refuse_another_configuration(self, lines: list[dict[str, Any]]) -> None:
        for number, line in enumerate(lines, 1):
            wrong = [
                f"{key} {_short(line.get(key))}, not {_short(self._identity[key])}"
                for key in IDENTITY
                if line.get(key) != self._identity[key]
            ]
            if wrong:
                raise ValueError(
                    f"{self.path}, line {number}: results of another configuration: "
                    f"{'; '.join(wrong)}. Nothing was changed; choose another file"
                )

    def append(self, result: EpisodeResult) -> None:
        """Adds a line; it is in the file when this returns."""
        line = json.dumps({**self._identity, **result.to_json()}, allow_nan=False)
        self._file.write(f"{line}\n".encode())
        self._file.flush()
        self.results[result.scene] = result

    def close(self) -> None:
        """Closes the file, on the disk too."""
        with contextlib.suppress(OSError):  # not every file can be synchronised
            os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:12] if len(text) == 64 and " " not in text else repr(value)


def read_results_text(path: pathlib.Path, text: str) -> list[dict[str, Any]]:
    """The lines of a results file, as plain JSON objects.

    Raises:
      ValueError: a line is damaged, lacks keys or has unknown ones.
    """
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            data = json.loads(line)
            EpisodeResult.from_json(data)
        except (ValueError, KeyError, TypeError) as error:
            reason = error.args[0] if error.args else error
            raise ValueError(
                f"{path}, line {number}: not a result of an episode: {reason}"
            ) from None
        lines.append(data)
    return lines


def read_results(path: str | pathlib.Path) -> tuple[dict[str, Any], list[EpisodeResult]]:
    """Reads a results file that nobody has to be writing.

    Returns:
      the identity, `IDENTITY` -> value, and the results in the file's order.

    Raises:
      FileNotFoundError: no such file. ValueError: it is damaged or empty.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no results file {path}; rt2 eval closed-loop --out writes one")
    text = path.read_text()
    lines = read_results_text(path, text[: text.rfind("\n") + 1])
    if not lines:
        raise ValueError(f"{path}: no results in it")
    identity = {key: lines[0].get(key) for key in IDENTITY}
    return identity, [EpisodeResult.from_json(line) for line in lines]
