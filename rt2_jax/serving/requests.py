"""What a request must hold, checked before it waits for the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rt2_jax.actions.identity import content_hash
from rt2_jax.actions.policy import Observation
from rt2_jax.actions.sampling import SAMPLING_FIELDS, Sampling
from rt2_jax.actions.space import ActionSpace
from rt2_jax.client.frames import PROTOCOL_VERSION

_SCHEMA_KEYS = (
    "views",
    "camera_size",
    "state_fields",
    "action_space_hash",
    "codec_hash",
    "prompt",
)
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
    *SAMPLING_FIELDS,
)
# Names that openpi's robots give to their cameras -> the view, by its place among the policy's.
_OPENPI_VIEWS = {
    "observation/image": 0,
    "observation/exterior_image_1_left": 0,
    "observation/wrist_image": 1,
    "observation/wrist_image_left": 1,
}
_OPENPI_STATE = "observation/state"


class BatchPolicy(Protocol):
    """What the server serves."""

    metadata: Mapping[str, Any]
    """Plain JSON with `action_space`, `views`, `camera_size` and the hashes."""

    def reset(self, session: str | None = None) -> None:
        """Forgets a session."""

    def infer_batch(self, observations: Sequence[Observation]) -> Sequence[Mapping[str, Any]]:
        """Answers observations of different sessions.

        A policy whose metadata has `most_samples` takes a `Sampling` as well, which is given only
        where requests ask for it.
        """


@dataclasses.dataclass(frozen=True)
class Request:
    """One question of a robot.

    Attributes:
      observation: what is seen and asked.
      seq: the client's number of it, given back; None if it sent none.
      budget_s: how long the answer may take from arrival; None for any time.
      warnings: what of the request nobody reads.
      sampling: how answers are to be drawn; None for the likeliest one.
    """

    observation: Observation
    seq: Any
    budget_s: float | None
    warnings: tuple[str, ...]
    sampling: Sampling | None = None


class Schema:
    """Which requests a policy can answer.

    Args:
      metadata: the policy's.

    Attributes:
      metadata: the same, with `protocol_version` and `schema_hash`: what clients are told.
      action_space: of the answers.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.action_space = ActionSpace.from_json(metadata["action_space"])
        self.views: list[str] = list(metadata["views"])
        self.state_fields: list[str] = list(metadata.get("state_fields", ()))
        schema = {key: metadata.get(key) for key in _SCHEMA_KEYS}
        self.metadata = {
            **metadata,
            "protocol_version": PROTOCOL_VERSION,
            "schema_hash": content_hash(schema),
        }

    def read(self, frame: Any, session: str) -> Request:
        """A request of its frame.

        Args:
          frame: the unpacked map.
          session: of requests that name none.

        Raises:
          KeyError, TypeError, ValueError: what was found, what is expected, what to change.
        """
        if not isinstance(frame, Mapping):
            raise TypeError(f"request: found {type(frame).__name__}, expected a map")
        self._check_schema(frame)
        unread: list[str] = []
        images = self._images(frame, unread)
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
        state = _as_numbers(frame.get("state", frame.get(_OPENPI_STATE)), "state")
        embedding = _as_numbers(frame.get("instruction_embedding"), "instruction_embedding")
        if self.state_fields and (state is None or state.shape != (len(self.state_fields),)):
            found = "no state" if state is None else f"a state of shape {list(state.shape)}"
            raise ValueError(
                f"request: found {found}, but this policy reads the robot's state: send the "
                f"{len(self.state_fields)} numbers {self.state_fields} under 'state'"
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
        known = {*_OWN_KEYS, *_OPENPI_VIEWS, _OPENPI_STATE}
        known |= {f"observation/{view}" for view in self.views}
        unread += sorted(str(key) for key in frame if key not in known)
        warnings = tuple(f"nobody reads {name!r} of the request" for name in unread)
        sampling = self._sampling(frame)
        return Request(observation, frame.get("seq"), _budget(frame), warnings, sampling)

    def _sampling(self, frame: Mapping[str, Any]) -> Sampling | None:
        sampling, most = Sampling.from_request(frame), self.metadata.get("most_samples", 0)
        if sampling is not None and sampling.num_samples > most:
            raise ValueError(
                f"request: asks for {sampling.num_samples} drawn answers, and this server gives "
                + (f"{most} at most" if most else "the likeliest one alone")
                + ": leave out num_samples, temperature, top_k and seed, or start it with "
                f"--samples {sampling.num_samples}"
            )
        return sampling

    def _check_schema(self, frame: Mapping[str, Any]) -> None:
        found, expected = frame.get("schema_hash"), self.metadata["schema_hash"]
        if found is not None and found != expected:
            raise ValueError(
                f"request: made for schema {str(found)[:12]}, this server serves {expected[:12]}: "
                "another policy is served than the client connected to; connect again and read "
                "its metadata"
            )

    def _images(self, frame: Mapping[str, Any], unread: list[str]) -> dict[str, np.ndarray]:
        given = frame.get("images") or {}
        if not isinstance(given, Mapping):
            raise TypeError(
                f"request: images: found {type(given).__name__}, expected a map from view to uint8 "
                "[H, W, 3]"
            )
        given = dict(given)
        for key in frame:
            if key in _OPENPI_VIEWS and _OPENPI_VIEWS[key] < len(self.views):
                given.setdefault(self.views[_OPENPI_VIEWS[key]], frame[key])
            elif key in _OPENPI_VIEWS:
                unread.append(key)
            elif str(key).startswith("observation/") and key[12:] in self.views:
                given.setdefault(key[12:], frame[key])
        missing = [view for view in self.views if view not in given]
        if missing:
            raise KeyError(
                f"request: no picture of view {missing[0]!r}; found {sorted(given)}, expected "
                f"{self.views}: send uint8 [H, W, 3] under images/{missing[0]}"
            )
        unread += [f"images/{view}" for view in given if view not in self.views]
        return {view: given[view] for view in self.views}


def _as_numbers(value: Any, name: str) -> np.ndarray | None:
    if value is None:
        return None
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"request: {name}: found no array ({error}), expected numbers") from error
    if array.dtype.kind not in "fiu":
        raise TypeError(f"request: {name}: found {array.dtype}, expected numbers")
    return array.astype(np.float32)


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
