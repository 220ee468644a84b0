"""Which requests of a server's log follow each other: the episodes of its robots."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rt2_jax.data.request_log import LoggedRequest, picture_size

LARGEST_EPISODE = 1 << 30
"""Bytes of pictures; RLDS keeps an episode in one example, which must stay below 2 GiB."""


@dataclass
class LoggedEpisode:
    """Steps that follow each other.

    Attributes:
      session: whose.
      steps: the places of its records in the log.
      ended: why there are no more: `terminate`, `reset`, `left`, `instruction`, `gap`, `step` (its
        number went back), `lost` (a record was dropped, perhaps of this session), `size`, or `end`
        of the log.
      picture_sizes: (height, width) of all pictures.
      state_sizes: how many numbers the states have; 0 for none.
      chunks: K of the answers.
      plans: whether any answer has a plan.
    """

    session: str
    steps: list[int] = field(default_factory=list)
    ended: str = "end"
    picture_sizes: set[tuple[int, int]] = field(default_factory=set)
    state_sizes: set[int] = field(default_factory=set)
    chunks: set[int] = field(default_factory=set)
    plans: bool = False


@dataclass
class _Open:
    """An episode that may go on, and its last request without what is large."""

    episode: LoggedEpisode
    last: LoggedRequest
    size: int = 0


class EpisodeCutter:
    """Takes a log's requests in order.

    A step is a request that was answered, once. Steps of one session and one connection follow each
    other until something says, or may mean, that an episode is over; see `LoggedEpisode.ended`.
    What was refused, failed or came too late gave the robot no action, and is no step.

    Args:
      terminate: the place of this field in an action, 0 to terminate; None where there is none.
      gap_s: a longer time between two requests ends an episode.
      keep: whether a session is wanted.

    Attributes:
      episodes: in the order of their first steps.
      counts: of requests that are no steps: `refused`, `late`, `failed`, `repeated` (sent again by
        the client), `other` (of sessions that are not wanted), and `lost`.
    """

    def __init__(self, *, terminate: int | None, gap_s: float, keep: Callable[[str], bool]) -> None:
        self.episodes: list[LoggedEpisode] = []
        self.counts: Counter[str] = Counter()
        self._terminate = terminate
        self._gap_s = gap_s
        self._keep = keep
        self._open: dict[tuple[str, str], _Open] = {}
        self._asked: dict[str, tuple[object, ...]] = {}  # what each session asked last
        self._expected = 0

    def add_all(self, requests: Iterable[LoggedRequest], offered: int | None) -> None:
        """Takes all of a log; `offered` is how many its server wanted to log, if it said so."""
        for place, request in enumerate(requests):
            self.add(place, request)
        if offered is not None:
            self.counts["lost"] += max(0, offered - self._expected)

    def add(self, place: int, request: LoggedRequest) -> None:
        """Takes the request at this place of the log."""
        if request.number > self._expected:
            self.counts["lost"] += request.number - self._expected
            self._end("lost", lambda key: True)
            self._asked.clear()
        self._expected = request.number + 1
        key = (request.session, request.connection)
        if request.outcome == "left":
            self._end("left", lambda open_key: open_key[1] == request.connection)
        elif request.outcome == "reset":
            self._end("reset", lambda open_key: open_key[0] == request.session)
            self._asked.pop(request.session, None)
        elif not self._keep(request.session):
            self.counts["other"] += 1
        elif request.outcome != "answered":
            self.counts[request.outcome] += 1
        elif self._is_repeated(request):
            self.counts["repeated"] += 1
        else:
            self._add_step(place, request, key)

    def _is_repeated(self, request: LoggedRequest) -> bool:
        """Whether it is the session's last one, sent again because the answer was lost."""
        digest = hashlib.sha256()
        for view, picture in sorted(request.pictures.items()):
            digest.update(f"{view}:{len(picture)}:".encode() + picture)
        state = None if request.state is None else request.state.tobytes()
        asked = (request.seq, request.step, request.instruction, state, digest.digest())
        before = self._asked.get(request.session)
        self._asked[request.session] = asked
        return request.seq is not None and asked == before

    def _add_step(self, place: int, request: LoggedRequest, key: tuple[str, str]) -> None:
        assert request.actions is not None
        size = sum(map(len, request.pictures.values()))
        here = self._open.get(key)
        if here is not None and (reason := self._break(here, request, size)):
            self._end(reason, lambda open_key: open_key == key)
            here = None
        if here is None:
            self.episodes.append(LoggedEpisode(request.session))
            here = self._open[key] = _Open(self.episodes[-1], request)
        episode = here.episode
        episode.steps.append(place)
        episode.picture_sizes |= {picture_size(picture) for picture in request.pictures.values()}
        episode.state_sizes.add(0 if request.state is None else len(request.state))
        episode.chunks.add(len(request.actions))
        episode.plans |= bool(request.plan)
        here.last = LoggedRequest(**{**request.__dict__, "pictures": {}})
        here.size += size
        if self._terminate is not None and request.actions[0, self._terminate] == 0:
            self._end("terminate", lambda open_key: open_key == key)

    def _break(self, here: _Open, request: LoggedRequest, size: int) -> str | None:
        """Why a step does not belong to the episode before it."""
        last = here.last
        if request.instruction != last.instruction:
            return "instruction"
        if request.clock - last.clock > self._gap_s:
            return "gap"
        if request.step is not None and last.step is not None and request.step < last.step:
            return "step"
        return "size" if here.size + size > LARGEST_EPISODE else None

    def _end(self, reason: str, which: Callable[[tuple[str, str]], bool]) -> None:
        for key in [key for key in self._open if which(key)]:
            self._open.pop(key).episode.ended = reason
