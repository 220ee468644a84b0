"""What is said over a connection to a policy server, without the connection.

Requests become frames here and frames become answers; `remote.py` and `remote_async.py` carry them.
"""

from __future__ import annotations

import itertools
import logging
import ssl
import time
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, List, Optional

from rt2_jax.actions.policy import Observation, check_policy_output
from rt2_jax.actions.sampling import Sampling
from rt2_jax.actions.space import ActionSpace
from rt2_jax.client.errors import DeadlineExceeded, StaleAnswer, error_of, number_of
from rt2_jax.client.frames import PROTOCOL_VERSION, pack, unpack
from rt2_jax.client.pictures import picture_encoder

LOG = logging.getLogger("rt2_jax.client")
RECONNECT = ("episode", "always")
_CLOSE_S = 0.5  # a server that does not answer does not say goodbye either
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0


@dataclass
class Pending:
    """A request that was sent, or is about to be.

    Attributes:
      number: its `seq`; negative for a reset, which has none.
      session: that it belongs to.
      observation: what it asks about; None for a reset.
      begin: when its budget began, on `time.monotonic`: at capture where that is known.
      budget_ms: milliseconds from there; None for any time.
      sampling: how to draw actions; None for the likeliest.
      settled: whether the caller has, or will get, an outcome; a frame that comes later is dropped.
      when_settled: is called once.
    """

    number: int
    session: Optional[str]
    observation: Optional[Observation]
    begin: float
    budget_ms: Optional[float] = None
    sampling: Optional[Sampling] = None
    settled: bool = False
    result: Optional[Dict[str, Any]] = None
    error: Optional[Exception] = None
    when_settled: Callable[[], None] = lambda: None

    @property
    def deadline(self) -> float:
        """On `time.monotonic`; infinite without a budget."""
        return float("inf") if self.budget_ms is None else self.begin + self.budget_ms / 1000

    def settle(
        self, result: Optional[Dict[str, Any]] = None, error: Optional[Exception] = None
    ) -> None:
        """Notes the outcome; only the first one counts."""
        if not self.settled:
            self.settled, self.result, self.error = True, result, error
            self.when_settled()

    def outcome(self) -> Dict[str, Any]:
        """The answer. Raises what was noted instead."""
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


class Patience:
    """How long to go on trying to connect: pauses that double, up to an end.

    Args:
      seconds: from now.
      end: on `time.monotonic`, if that is earlier.
    """

    def __init__(self, seconds: float, end: float = float("inf")) -> None:
        self._end = min(time.monotonic() + seconds, end)
        self._pause = _FIRST_PAUSE_S

    def after(self, error: Exception) -> float:
        """Seconds to sleep after a failure; raises it when the time is over."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise error
        LOG.warning("%s; trying again for %.1f s", error, left)
        pause = min(self._pause, left)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)
        return pause


class Conversation:
    """The options, the metadata and the requests under way of a client.

    Args:
      url: `ws://host:port` or `wss://...`.
      token: of a server that asks for one.
      timeout_s: how long to wait for an answer; the connection is given up after it.
      patience_s: how long to go on trying to connect; 0 tries once.
      budget_ms: no answer is used later than so many milliseconds after its picture was captured
        (`Observation.captured_at`; else after `infer` was called); None for any time.
      reconnect: `episode`: after a lost connection only `reset` connects again. `always`: the next
        `infer` does too, for `patience_s` and never beyond its budget. The request that was lost
        is not sent again in either: only the robot's program knows whether an old picture may
        still be acted on.
      pictures: `raw`, or `jpeg:QUALITY`; see `picture_encoder`.
      ca: file of certificates that a `wss://` server's must be signed by, instead of the system's.

    Attributes:
      metadata: what the server says of the policy: action space, units, control rate, hashes.
      action_space: of the answers.
      reconnect: as given.

    Raises:
      ValueError: an option that is none. ImportError: JPEG without Pillow. OSError: no such `ca`.
    """

    def __init__(
        self,
        url: str,
        token: Optional[str] = None,
        timeout_s: float = 30.0,
        patience_s: float = 0.0,
        budget_ms: Optional[float] = None,
        reconnect: str = "episode",
        pictures: str = "raw",
        ca: Optional[str] = None,
    ) -> None:
        if not url.startswith(("ws://", "wss://")):
            raise ValueError(f"url: found {url!r}, expected ws://host:port or wss://host:port")
        if reconnect not in RECONNECT:
            raise ValueError(f"reconnect: found {reconnect!r}, expected one of {list(RECONNECT)}")
        if ca is not None and not url.startswith("wss://"):
            raise ValueError(f"ca: {url} has no TLS; connect to wss://, or leave ca out")
        self.url = url
        self.reconnect = reconnect
        self.metadata: Dict[str, Any] = {}
        self.action_space: ActionSpace
        self._token = token
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._budget_ms = budget_ms
        self._encode = picture_encoder(pictures)
        self._tls = None if ca is None else ssl.create_default_context(cafile=str(ca))
        self._numbers = itertools.count()
        self._resets = itertools.count(-2, -1)  # they have no `seq`
        self._sent: Dict[int, Pending] = {}  # in order; until their frame comes
        self._warned: set = set()
        self._begin()

    def _begin(self) -> None:
        """Connects, where that can be done without `await`."""

    def _connect_arguments(self) -> Dict[str, Any]:
        """For `websockets`' `connect`, of both kinds."""
        arguments: Dict[str, Any] = {
            "additional_headers": {"Authorization": f"Bearer {self._token}"} if self._token else {},
            "compression": None,
            "max_size": None,
            "open_timeout": self._timeout_s,
            "close_timeout": _CLOSE_S,
        }
        if self._tls is not None:
            arguments["ssl"] = self._tls
        return arguments

    def _no_connection(self, error: Exception) -> ConnectionError:
        """What an error of `connect` means."""
        from websockets.exceptions import InvalidMessage  # whoever only imports this needs numpy

        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            reason = f"{status}, a token is needed, or another one"
            return ConnectionError(f"{self.url}: the server refused: {reason}")
        if status is not None:
            return ConnectionError(f"{self.url}: the server refused: {error}")
        if isinstance(error, ssl.SSLError):
            return ConnectionError(
                f"{self.url}: no TLS connection ({error}); `ca` names the file of certificates "
                "that the server's is signed by"
            )
        if isinstance(error, ConnectionRefusedError):
            return ConnectionError(
                f"{self.url}: no server answers ({error}): a wrong address, or a server that is "
                "still compiling, whose port opens when it is ready"
            )
        if isinstance(error, InvalidMessage) and self.url.startswith("ws://"):
            return ConnectionError(
                f"{self.url}: what answers there speaks no plain HTTP ({error}): a server with TLS "
                "has the address wss://, and `ca` names its certificate"
            )
        return ConnectionError(f"{self.url}: no server answers ({error})")

    def _greeted(self, frame: Any, new_episode: bool) -> None:
        """Reads the server's first frame.

        Raises:
          ValueError: no server of this project, another protocol, or in the middle of an episode
            another policy.
        """
        if isinstance(frame, str):
            raise ValueError(f"{self.url}: {frame}")
        metadata = unpack(frame)
        if isinstance(metadata, dict) and isinstance(metadata.get("tasks"), dict):
            raise ValueError(
                f"{self.url}: serves the tasks {', '.join(metadata['tasks'])}; choose one in the "
                f"address: {self.url.rstrip('/')}/?task=NAME"
            )
        if not isinstance(metadata, dict) or "action_space" not in metadata:
            raise ValueError(f"{self.url}: no server of this project: it names no action space")
        if metadata.get("protocol_version") != PROTOCOL_VERSION:
            raise ValueError(
                f"{self.url}: speaks protocol version {metadata.get('protocol_version')!r}, this "
                f"client {PROTOCOL_VERSION}; install the client of the server's release"
            )
        if self.metadata and metadata != self.metadata:
            changed = ", ".join(sorted(k for k in metadata if metadata[k] != self.metadata.get(k)))
            if not new_episode and metadata["schema_hash"] != self.metadata["schema_hash"]:
                raise ValueError(
                    f"{self.url}: serves another policy than before ({changed}), in the middle of "
                    "an episode; end it and call reset()"
                )
            LOG.warning("%s: serves another policy than before: %s", self.url, changed)
        elif self.metadata and not new_episode:
            LOG.warning(
                "%s: connected again within an episode; a server that was started again has "
                "forgotten the earlier frames of it",
                self.url,
            )
        self.metadata = metadata
        self.action_space = ActionSpace.from_json(metadata["action_space"])

    def _question(
        self,
        observation: Observation,
        budget_ms: Optional[float],
        sampling: Optional[Sampling],
    ) -> Pending:
        """A request, not yet sent. Raises TypeError and ValueError for a malformed observation."""
        observation.check()
        begin, now = observation.captured_at, time.monotonic()
        if begin is not None and begin > now:
            raise ValueError(
                f"observation: captured_at is {begin - now:.3f} s ahead of time.monotonic(); give "
                "the moment of capture on that clock"
            )
        return Pending(
            next(self._numbers),
            observation.session,
            observation,
            now if begin is None else begin,
            self._budget_ms if budget_ms is None else budget_ms,
            sampling,
        )

    def _frame(self, pending: Pending) -> bytes:
        """The frame to send now; the request is then under way.

        Raises:
          DeadlineExceeded: its budget is over already.
        """
        seen = pending.observation
        if seen is None:
            frame = pack({"reset": pending.session})
        else:
            request: Dict[str, Any] = {
                "images": {view: self._encode(picture) for view, picture in seen.images.items()},
                "prompt": seen.instruction,
                "seq": pending.number,
                "schema_hash": self.metadata["schema_hash"],
            }
            age_ms = 1000 * (time.monotonic() - pending.begin)
            told = seen.captured_at is not None or pending.budget_ms is not None
            for name, value in (
                ("state", seen.state),
                ("instruction_embedding", seen.instruction_embedding),
                ("session", seen.session),
                ("step", seen.step),
                ("budget_ms", pending.budget_ms),
                ("age_ms", age_ms if told else None),
            ):
                if value is not None:
                    request[name] = value
            if pending.sampling is not None:
                request.update(asdict(pending.sampling))
            frame = pack(request)
            self._check_time(pending, "nothing was sent")
        self._sent[pending.number] = pending
        return frame

    def _reset_of(self, session: Optional[str]) -> Pending:
        """A reset, not yet sent; answers to earlier requests of the session are for nobody."""
        for each in self._sent.values():
            if each.session == session:
                each.settle(error=StaleAnswer(f"{self.url}: its episode was reset"))
        return Pending(next(self._resets), session, None, time.monotonic())

    def _received(self, frame: Any) -> None:
        """Settles what a frame answers, and older requests of its session.

        Raises:
          ConnectionError: it answers nothing that was asked.
        """
        if isinstance(frame, str):
            self._take(number_of(frame), "text").settle(error=error_of(frame, self.url))
            return
        try:
            reply = unpack(frame)
        except (TypeError, ValueError) as error:
            raise ConnectionError(f"{self.url}: an answer that cannot be read: {error}") from error
        if not isinstance(reply, dict):
            raise ConnectionError(f"{self.url}: answered {type(reply).__name__}, expected a map")
        if set(reply) == {"reset"}:
            resets = (number for number, each in self._sent.items() if each.observation is None)
            self._take(next(resets, -1), "a reset").settle(result=reply)
            return
        pending = self._take(reply.get("seq", -1), f"request {reply.get('seq')!r}")
        for each in self._sent.values():
            same = each.observation is not None and each.session == pending.session
            if same and each.number < pending.number:
                text = f"request {pending.number} was answered before request {each.number}"
                each.settle(error=StaleAnswer(f"{self.url}: {text}, which is not for use now"))
        self._answered(pending, reply)

    def _take(self, number: Optional[int], what: str) -> Pending:
        """The request of a number; without one the oldest, for they are answered in order."""
        if number is None:
            number = next(iter(self._sent), -1)
        if number not in self._sent:
            waiting = list(self._sent) or "none"
            raise ConnectionError(
                f"{self.url}: answered {what}, expected one of {waiting}; the connection is closed"
            )
        return self._sent.pop(number)

    def _answered(self, pending: Pending, reply: Dict[str, Any]) -> None:
        if pending.settled:  # nobody waits for it any more
            return
        try:
            self._check_time(pending, "the answer is not for use")
            check_policy_output(self.action_space, reply, self.url)
        except (DeadlineExceeded, KeyError, TypeError, ValueError) as error:
            pending.settle(error=error)
            return
        for warning in reply.get("warnings", ()):
            if warning not in self._warned:
                self._warned.add(warning)
                LOG.warning("%s: %s", self.url, warning)
        pending.settle(result=reply)

    def _check_time(self, pending: Pending, consequence: str) -> None:
        now = time.monotonic()
        if now > pending.deadline:
            raise self._late(pending, now, consequence)

    def _late(self, pending: Pending, now: float, consequence: str) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"{self.url}: request {pending.number}: {1000 * (now - pending.begin):.0f} ms since "
            f"its picture, the budget was {pending.budget_ms:g} ms; {consequence}"
        )

    def _give_up_late(self, pending: Pending) -> None:
        """Settles a request whose budget is over; its answer will be dropped when it comes."""
        sent = pending.number in self._sent
        so = "no answer has come" if sent else "not sent: the server is still at an earlier one"
        pending.settle(error=self._late(pending, time.monotonic(), so))

    def _silent(self) -> TimeoutError:
        """The error of a server that said nothing for `timeout_s`."""
        return TimeoutError(
            f"{self.url}: no answer within {self._timeout_s:g} s; the connection is closed"
        )

    def _not_connected(self) -> ConnectionError:
        return ConnectionError(f"{self.url}: not connected; call reset() to connect again")

    def _lost(self, error: Exception) -> ConnectionError:
        """Settles all that is under way with the loss of the connection; the error to raise."""
        how = (
            "the next infer() connects" if self.reconnect == "always" else "call reset() to connect"
        )
        lost = ConnectionError(
            f"{self.url}: the connection was lost ({error}); the request may or may not have "
            f"been decided, and was not sent again; {how} again"
        )
        lost.__cause__ = error
        self._forget(lost)
        return lost

    def _forget(self, error: Exception) -> None:
        sent: List[Pending] = list(self._sent.values())
        self._sent.clear()
        for each in sent:
            each.settle(error=error)
