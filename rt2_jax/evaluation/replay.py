"""`rt2 eval replay`: a server's log asked again; the same tokens, or another model's."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from rt2_jax.actions.policy import Observation
from rt2_jax.data.image import decode_image
from rt2_jax.data.request_log import LoggedRequest, RequestLog, find_logs
from rt2_jax.data.task_info import TaskInfo
from rt2_jax.inference.engine import EnginePolicy, PolicyEngine

_EVENTS = ("reset", "left")


@dataclass(frozen=True)
class Difference:
    """An answer that is not the one of the log.

    Attributes:
      log, number: of the record.
      session, step, instruction: of the request.
      what: the first thing that differs, in words.
      certain: whether the model surely had the frames then that it has now.
    """

    log: str
    number: int
    session: str
    step: int | None
    instruction: str
    what: str
    certain: bool


@dataclass
class ReplayReport:
    """What came of it.

    Attributes:
      records: of the logs.
      missing: records that the logs were to have and have not.
      answered: requests that the log has an answer to, and that were asked again.
      same: of them, those with the same tokens and plan (actions, where a log has no tokens).
      uncertain: of them, those before which a frame of the session may have been remembered, or
        not, without the log saying so: behind a request that was late or failed, or after a gap.
      differences: all others.
      tokens, same_tokens: compared one by one; 0 where the two write actions differently.
      score_difference: the greatest, of answers with the same tokens; 0 where there are no scores.
      errors: per field, float64 [N, D] absolute differences of the actions, native units.
    """

    records: int = 0
    missing: int = 0
    answered: int = 0
    same: int = 0
    uncertain: int = 0
    differences: list[Difference] = field(default_factory=list)
    tokens: int = 0
    same_tokens: int = 0
    score_difference: float = 0.0
    errors: list[np.ndarray] = field(default_factory=list)

    @property
    def certain_differences(self) -> int:
        """Differences that no gap in the log explains."""
        return sum(each.certain for each in self.differences)

    def fields(self) -> dict[str, np.ndarray]:
        """Of every field `mean`, `median` and `greatest` difference and `equal` share, [D] each."""
        errors = np.concatenate(self.errors)
        return {
            "mean": errors.mean(0),
            "median": np.median(errors, 0),
            "greatest": errors.max(0),
            "equal": (errors == 0).mean(0),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        data = {name: value for name, value in vars(self).items() if name != "errors"}
        data["differences"] = [asdict(each) for each in self.differences]
        if self.errors:
            data["fields"] = {name: values.tolist() for name, values in self.fields().items()}
        return data


def open_logs(directory: str | pathlib.Path) -> list[RequestLog]:
    """The logs of a folder that have records.

    Raises:
      FileNotFoundError, ValueError: no log, or a damaged one.
    """
    logs = [log for log in map(RequestLog, find_logs(directory)) if len(log)]
    if not logs:
        raise ValueError(f"{directory}: its logs hold no request")
    return logs


def check_same_policy(logs: Sequence[RequestLog], engine: PolicyEngine, task: TaskInfo) -> bool:
    """Whether the logs were written by these weights.

    Raises:
      ValueError: the actions are of another space, so that nothing can be compared.
    """
    mine = engine.describe(task)
    for log in logs:
        theirs = log.info.metadata
        if theirs.get("action_space_hash") != mine["action_space_hash"]:
            raise ValueError(
                f"{log.folder}: its actions are of space "
                f"{theirs.get('action_space', {}).get('name')!r}, those of {engine.checkpoint} of "
                f"{mine['action_space']['name']!r}: they cannot be compared; --task chooses "
                "another robot of the checkpoint"
            )
    return all(log.info.metadata.get("weights") == mine["weights"] for log in logs)


def replay(
    engine: PolicyEngine,
    logs: Sequence[RequestLog],
    task: TaskInfo,
    *,
    batch_size: int = 8,
    limit: int | None = None,
    report: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> ReplayReport:
    """Asks all that logs have an answer to, session by session in their order, with their resets.

    Args:
      engine: that answers now; its checkpoint need not be the logs'.
      logs: as `open_logs` gives them; each begins without frames, as its server did.
      task: whose prompt and actions are meant.
      batch_size: requests of different sessions that are asked together.
      limit: of answers that are compared, the first ones; None: all.
      report: called with a log's name, records done and records in all.
    """
    found = ReplayReport()
    for log in logs:
        one = _Replay(engine, task, log, found, limit)
        for done in one.run(batch_size):
            report(log.folder.name, done, len(log))
        if limit is not None and found.answered >= limit:
            break
    return found


class _Replay:
    """One log."""

    def __init__(
        self,
        engine: PolicyEngine,
        task: TaskInfo,
        log: RequestLog,
        found: ReplayReport,
        limit: int | None,
    ) -> None:
        self._policy = EnginePolicy(engine, task)
        metadata = engine.describe(task)
        # Ids mean the same where codec and vocabulary are the same.
        self._same_writing = all(
            log.info.metadata.get(name) == metadata[name]
            for name in ("codec_hash", "vocabulary_hash")
        )
        self._remembers = any(time < 0 for _, time in engine.description.inputs.image_slots)
        self._names = [each["name"] for each in metadata["action_space"]["fields"]]
        self._log, self._found, self._limit = log, found, limit
        self._gap = False
        self._known: set[str] = set()  # sessions that were begun anew since the last gap
        self._doubtful: set[str] = set()

    def run(self, batch_size: int) -> Iterator[int]:
        """Yields how many records are done."""
        batch: list[LoggedRequest] = []
        before = -1
        for index in range(len(self._log)):
            record = self._log[index]
            self._found.records += 1
            gap = record.number - before - 1
            before = record.number
            answered = record.outcome == "answered"
            if gap or not answered or any(each.session == record.session for each in batch):
                self._ask(batch)
                batch = []
            if gap:
                self._found.missing += gap
                self._gap = True
                self._known.clear()
            if answered:
                batch.append(record)
            elif record.outcome in _EVENTS:
                self._policy.reset(record.session)
                self._known.add(record.session)
                self._doubtful.discard(record.session)
            elif record.pictures:
                self._doubtful.add(record.session)
            enough = self._limit is not None and self._found.answered + len(batch) >= self._limit
            if len(batch) >= batch_size or enough:
                self._ask(batch)
                batch = []
                yield index + 1
            if enough:
                return
        self._ask(batch)
        yield len(self._log)

    def _ask(self, batch: list[LoggedRequest]) -> None:
        if not batch:
            return
        observations = [_observation(record) for record in batch]
        try:
            answers: list[Any] = list(self._policy.infer_batch(observations))
        except (KeyError, TypeError, ValueError):
            answers = [self._one(observation) for observation in observations]
        for record, answer in zip(batch, answers, strict=True):
            self._compare(record, answer)

    def _one(self, observation: Observation) -> Any:
        try:
            return self._policy.infer(observation)
        except (KeyError, TypeError, ValueError) as error:
            return error

    def _compare(self, record: LoggedRequest, answer: Any) -> None:
        found = self._found
        found.answered += 1
        behind_gap = self._gap and record.session not in self._known
        doubtful = self._remembers and (behind_gap or record.session in self._doubtful)
        found.uncertain += doubtful
        what = self._differs(record, answer)
        if not what:
            found.same += 1
            if record.score is not None and answer.get("score") is not None:
                apart = abs(record.score - float(answer["score"]))
                found.score_difference = max(found.score_difference, apart)
            return
        found.differences.append(
            Difference(
                self._log.folder.name,
                record.number,
                record.session,
                record.step,
                record.instruction,
                what,
                not doubtful,
            )
        )

    def _differs(self, record: LoggedRequest, answer: Any) -> str:
        """The first thing that differs, in words; "" for nothing."""
        found = self._found
        if isinstance(answer, Exception):
            return f"no answer now: {answer.args[0] if answer.args else answer}"
        then, now = record.actions, answer["actions"]
        assert then is not None
        steps = min(len(then), len(now))
        found.errors.append(np.abs(then[:steps].astype(np.float64) - now[:steps]))
        if self._same_writing and record.tokens is not None:
            mine, theirs = np.asarray(answer["tokens"]), record.tokens
            least = min(len(mine), len(theirs))
            equal = mine[:least] == theirs[:least]
            found.tokens += least
            found.same_tokens += int(equal.sum())
            if not equal.all():
                place = int(np.argmin(equal))
                step, column = divmod(place, len(self._names))
                name = self._names[column] if len(self._names) * len(now) == len(mine) else ""
                return (
                    f"token {place}{f' ({name} of action {step})' if name else ''}: "
                    f"{theirs[place]} then, {mine[place]} now; score {_score(record.score)} then, "
                    f"{_score(answer.get('score'))} now"
                )
        if len(then) != len(now):
            return f"{len(then)} actions then, {len(now)} now"
        if not np.array_equal(then, now):
            step, column = (int(i) for i in np.argwhere(then != now)[0])
            values = f"{then[step, column]:.6g} then, {now[step, column]:.6g} now"
            return f"{self._names[column]} of action {step}: {values}"
        if record.plan != answer["plan"]:
            return f"plan: {record.plan!r} then, {answer['plan']!r} now"
        return ""


def _observation(record: LoggedRequest) -> Observation:
    where = f"request {record.number}"
    return Observation(
        images={
            view: decode_image(data, f"{where}, view {view!r}")
            for view, data in record.pictures.items()
        },
        instruction=record.instruction,
        state=None if record.state is None else np.array(record.state),
        session=record.session,
        step=record.step,
    )


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
