"""What a request must hold, checked before it waits for the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rt2_jax import __version__
from rt2_jax.actions.identity import content_hash
from rt2_jax.actions.policy import Observation
from rt2_jax.actions.sampling import SAMPLING_FIELDS, Sampling
from rt2_jax.actions.space import ActionSpace, check_actions
from rt2_jax.client.frames import PROTOCOL_VERSION
from rt2_jax.serving.observation_keys import (
    CAMERAS,
    JOINED_STATE,
    STATE,
    as_pixels,
    known_names,
    may_be_picture,
    state_of,
    view_of,
)
from rt2_jax.serving.plain_actions import PlainActions

_SCHEMA_KEYS = (
    "views",
    "camera_size",
    "state_fields",
    "action_space_hash",
    "codec_hash",
    "prompt",
)
_SAME_ASPECT = 0.02  # as far as whole pixels may be off
_OWN_KEYS = (
    "images",
    "prompt",
    "instruction",
    "state",
    "instruction_embedding",
    "session",
    "step",
    "seq",
    "budget_ms",
    "age_ms",
    "schema_hash",
    "protocol_version",
    "task",
    "embodiment",
)


class BatchPolicy(Protocol):
    """What the server serves."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Plain JSON with `action_space`, `views`, `camera_size` and the hashes."""

    def reset(self, session: str | None = None) -> None:
        """Forgets a session."""

    def infer_batch(self, observations: Sequence[Observation]) -> Sequence[Mapping[str, Any]]:
        """Answers observations of different sessions.

        One whose metadata has `most_samples` above 0 also takes a `Sampling` behind them, and then
        draws `samples`.
        """


@dataclasses.dataclass(frozen=True)
class Request:
    """One question of a robot.

    Attributes:
      observation: what is seen and asked.
      seq: the client's number of it, rising and given back; None if it sent none.
      budget_s: how long the answer may take from arrival; None for any time.
      warnings: what of the request nobody reads, in words.
      unread: the same, names only.
      sampling: how answers are drawn; None for the likeliest one.
    """

    observation: Observation
    seq: int | None
    budget_s: float | None
    warnings: tuple[str, ...]
    unread: tuple[str, ...] = ()
    sampling: Sampling | None = None


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The pictures of a request, before they are decoded.

    Attributes:
      of_views: view -> an array, or JPEG or PNG; or whatever else was sent for it.
      unread: names of others in the request.
      keys: of the request that hold pictures.
    """

    of_views: dict[str, Any]
    unread: list[str]
    keys: set[str]


class Schema:
    """Which requests a policy can answer.

    Args:
      metadata: the policy's.
      cameras: clients' names of cameras -> the policy's views, beside those that are known anyway.
      tasks: names of the task that the policy is served for.

    Attributes:
      metadata: the same, with what the server adds: what clients are told.
      action_space: of the answers.
      cameras: as given.
      plain_actions: the answers for clients that know no `terminate`.
      statistics_keys: names that clients may give to what the actions are scaled by.
    """

    def __init__(
        self,
        metadata: Mapping[str, Any],
        cameras: Mapping[str, str] | None = None,
        tasks: Iterable[str] = (),
    ) -> None:
        self.action_space = ActionSpace.from_json(metadata["action_space"])
        self.plain_actions = PlainActions(self.action_space, metadata.get("action_bounds"))
        self.views: list[str] = list(metadata["views"])
        self.state_fields: list[str] = list(metadata.get("state_fields", ()))
        self.cameras = dict(cameras or {})
        self._most_samples = int(metadata.get("most_samples", 0))
        for name, view in self.cameras.items():
            if view not in self.views:
                raise ValueError(
                    f"camera {name!r}: found view {view!r}, expected one of {self.views}"
                )
        keys = (metadata.get("embodiment"), self.action_space.name, metadata.get("task"), *tasks)
        self.statistics_keys = sorted(
            {*metadata.get("statistics_keys", ()), *(str(key) for key in keys if key)}
        )
        schema = {key: metadata.get(key) for key in _SCHEMA_KEYS}
        self.metadata = {
            "deterministic": True,
            **metadata,
            "protocol_version": PROTOCOL_VERSION,
            "schema_hash": content_hash(schema),
            "versions": {"rt2_jax": __version__, "protocol": PROTOCOL_VERSION},
            "statistics_keys": self.statistics_keys,
            "inputs": self._inputs(metadata),
            "plain_actions": self.plain_actions.describe(),
        }

    def _inputs(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Which inputs are needed, are read if they are there, or are ignored: plain JSON."""
        required = ["prompt", *(f"images/{view}" for view in self.views)]
        optional = ["session", "step", "seq", "budget_ms", "age_ms", "schema_hash"]
        ignored = ["committed_actions"]
        optional.extend(SAMPLING_FIELDS if self._most_samples else ())
        (required if self.state_fields else ignored).append("state")
        reads_vectors = metadata.get("instruction_encoder") is not None
        (optional if reads_vectors else ignored).append("instruction_embedding")
        return {
            "required": required,
            "optional": optional,
            "ignored": ignored,
            "cameras": known_names(self.views, self.cameras),
            "state": [list(STATE), list(JOINED_STATE)],
        }

    def pictures(self, frame: Mapping[str, Any]) -> Pictures:
        """The pictures in a request.

        Raises:
          KeyError: one is missing. TypeError: `images` is no map.
        """
        given = frame.get("images")
        given = {} if given is None else given
        if not isinstance(given, Mapping):
            raise TypeError(
                f"request: images: found {type(given).__name__}, expected a map from view to uint8 "
                "[H, W, 3]"
            )
        of_views: dict[str, Any] = {}
        unread: list[str] = []
        keys: set[str] = set()
        named = [(f"images/{name}", str(name), value) for name, value in given.items()]
        for key, value in frame.items():
            if isinstance(key, str) and (self._is_camera(key) or may_be_picture(key, value)):
                keys.add(key)
                named.append((key, key, value))
        # The policy's own names first: what a client calls otherwise cannot take their place.
        for key, name, value in sorted(named, key=lambda each: each[1] not in self.views):
            view = view_of(name, self.views, self.cameras)
            if view is None or view in of_views:
                unread.append(key)
            else:
                of_views[view] = value
        missing = [view for view in self.views if view not in of_views]
        if missing:
            raise KeyError(
                f"request: no picture of view {missing[0]!r}; found "
                f"{sorted(key.removeprefix('images/') for key, _, _ in named)}, expected "
                f"{self.views}: send uint8 [H, W, 3] under images/{missing[0]}"
            )
        return Pictures(of_views, unread, keys)

    def _is_camera(self, key: str) -> bool:
        return (
            key not in _OWN_KEYS
            and key not in STATE
            and (key in CAMERAS or view_of(key, self.views, self.cameras) is not None)
        )

    def squeezed(self, images: Mapping[str, np.ndarray]) -> list[str]:
        """What to say of pictures whose aspect ratio nobody checks, and the model's is another.

        A policy that was trained on pictures of any size has no `camera_size` to compare with.
        """
        size = self.metadata.get("image_size")
        if size is None or self.metadata.get("camera_size") is not None:
            return []
        wide, model = size[1] / size[0], f"{size[0]} x {size[1]}"
        return [
            f"images/{view}: {image.shape[0]} x {image.shape[1]} pixels are squeezed into {model}, "
            "as they are in training: send pictures of training's aspect ratio"
            for view, image in images.items()
            if abs(image.shape[1] / image.shape[0] / wide - 1) > _SAME_ASPECT
        ]

    def read(self, frame: Any, session: str, pictures: Pictures | None = None) -> Request:
        """A request of its frame.

        Args:
          frame: the unpacked map.
          session: of requests that name none.
          pictures: those of the frame, once they are decoded; None if none is encoded.

        Raises:
          KeyError, TypeError, ValueError: what was found, what is expected, what to change.
        """
        if not isinstance(frame, Mapping):
            raise TypeError(f"request: found {type(frame).__name__}, expected a map")
        self._check_schema(frame)
        pictures = pictures or self.pictures(frame)
        unread = list(pictures.unread)
        images = {
            view: as_pixels(pictures.of_views[view], f"request: images/{view}")
            for view in self.views
        }
        prompt = frame.get("prompt", frame.get("instruction"))
        if prompt is None:
            raise KeyError(
                f"request: no 'prompt'; found {sorted(map(str, frame))}: send the instruction in "
                "words under 'prompt'"
            )
        if isinstance(prompt, bytes):
            try:
                prompt = prompt.decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"request: prompt: not UTF-8 ({error}); send text") from error
        state, unread_state = state_of(frame, bool(self.state_fields))
        state = _as_numbers(state, "state")
        unread += unread_state
        embedding = _as_numbers(frame.get("instruction_embedding"), "instruction_embedding")
        if self.state_fields and (state is None or state.shape != (len(self.state_fields),)):
            found = "no state" if state is None else f"a state of shape {list(state.shape)}"
            raise ValueError(
                f"request: found {found}, but this policy reads the robot's state: send the "
                f"{len(self.state_fields)} numbers {self.state_fields} under 'state'"
            )
        if frame.get("committed_actions") is not None:
            check_actions(
                self.action_space, frame["committed_actions"], "request: committed_actions"
            )
        observation = Observation(
            images=images,
            instruction=prompt,
            state=state,
            session=str(frame.get("session") or session),
            step=frame.get("step"),
            instruction_embedding=embedding,
        )
        observation.check()
        sampling = self._sampling(frame)
        known = {*_OWN_KEYS, *STATE, *JOINED_STATE, *pictures.keys}
        known |= set(SAMPLING_FIELDS)
        unread += sorted(str(key) for key in frame if key not in known)
        warnings = tuple(f"nobody reads {name!r} of the request" for name in unread)
        return Request(observation, _seq(frame), _budget(frame), warnings, tuple(unread), sampling)

    def _sampling(self, frame: Mapping[str, Any]) -> Sampling | None:
        sampling = Sampling.from_request(frame)
        if sampling is not None and not self._most_samples:
            raise ValueError(
                f"request: asks for {sampling.num_samples} drawn answers, and this server gives "
                f"the likeliest one: leave out {', '.join(SAMPLING_FIELDS)}, or start it with "
                "--samples"
            )
        if sampling is not None and sampling.num_samples > self._most_samples:
            raise ValueError(
                f"request: num_samples: found {sampling.num_samples}, expected at most "
                f"{self._most_samples}, which the server was started for"
            )
        return sampling

    def _check_schema(self, frame: Mapping[str, Any]) -> None:
        version = frame.get("protocol_version")
        if version is not None and version != PROTOCOL_VERSION:
            raise ValueError(
                f"request: protocol_version: found {version!r}, expected {PROTOCOL_VERSION}: the "
                "client is of another release than this server"
            )
        found, expected = frame.get("schema_hash"), self.metadata["schema_hash"]
        if found is not None and found != expected:
            raise ValueError(
                f"request: made for schema {str(found)[:12]}, this server serves {expected[:12]}: "
                "another policy is served than the client connected to; connect again and read "
                "its metadata"
            )


def _as_numbers(value: Any, name: str) -> np.ndarray | None:
    if value is None:
        return None
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"request: {name}: found no array ({error}), expected numbers") from error
    if array.dtype.kind not in "fiu":
        raise TypeError(f"request: {name}: found {array.dtype}, expected numbers")
    with np.errstate(over="ignore"):  # infinite numbers are refused by whoever reads them
        return array.astype(np.float32)


def _seq(frame: Mapping[str, Any]) -> int | None:
    value = frame.get("seq")
    if value is None:
        return None
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"request: seq: found {value!r}, expected a whole number that rises")
    return int(value)


def _budget(frame: Mapping[str, Any]) -> float | None:
    numbers = {}
    for name in ("budget_ms", "age_ms"):
        value = frame.get(name)
        if value is not None and not (
            isinstance(value, (int, float, np.number))
            and not isinstance(value, bool)
            and np.isfinite(value)
            and value >= 0
        ):
            raise ValueError(f"request: {name}: found {value!r}, expected milliseconds from 0")
        numbers[name] = value
    if numbers["budget_ms"] is None:
        return None
    return (float(numbers["budget_ms"]) - float(numbers["age_ms"] or 0)) / 1000
