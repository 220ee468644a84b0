"""How much a client may send, and how long it may take, before the server lets go of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_FULL_HD = 1920 * 1080
_BESIDE_PICTURES = 2**20  # bytes of a request that are no pixels: names, state, instruction


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the server takes from its clients; `docs/security.md` says why these.

    Attributes:
      pixels: of one picture, before it is resized.
      frame_bytes: of a websocket message.
      body_bytes: of an HTTP request; base64 in JSON is a third longer than the pixels.
      text: characters of an instruction, and of other text of a request.
      connections: open at a time, of all clients.
      connections_per_key: of these, websockets and HTTP requests under way with the same key.
      strangers: of these, those that have not shown a key yet; the oldest gives way to the next.
      request_s: from the first byte of a request (its headers, its body, a websocket message) to
        its last; TLS and the opening handshake too.
      send_s: how long a client may leave what it was sent unread.
      idle_s: how long a websocket may say nothing; one that does not answer pings ends sooner.
      unread_bytes: what may wait for a client that does not read while it goes on sending.
      decoding_threads: that decode pictures.
      decoding_waiting: pictures that may wait for them.
    """

    pixels: int = _FULL_HD
    frame_bytes: int = 16 * 2**20
    body_bytes: int = 24 * 2**20
    text: int = 8192
    connections: int = 256
    connections_per_key: int = 128
    strangers: int = 64
    request_s: float = 20.0
    send_s: float = 10.0
    idle_s: float = 24 * 3600.0
    unread_bytes: int = 2**20
    decoding_threads: int = 2
    decoding_waiting: int = 64

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"limits: {field.name}: found {value}, expected a number above 0")

    @classmethod
    def of_policy(cls, metadata: Mapping[str, Any], **changes: Any) -> Limits:
        """The limits that follow from what a policy looks at.

        A picture may have twice the sides of the policy's `camera_size`, or those of full HD if
        that is more; a frame may hold one such picture of every view.

        Args:
          metadata: with `views` and `camera_size`, (height, width) or None for any.
          changes: other values of the attributes.
        """
        pixels = changes.pop("pixels", None)
        if pixels is None:
            size: Sequence[int] = metadata.get("camera_size") or (0, 0)
            pixels = max(4 * size[0] * size[1], _FULL_HD)
        frame = _BESIDE_PICTURES + 3 * pixels * max(1, len(metadata["views"]))
        return cls(pixels, **{"frame_bytes": frame, "body_bytes": frame * 3 // 2, **changes})

    @classmethod
    def of_policies(cls, metadata: Iterable[Mapping[str, Any]], **changes: Any) -> Limits:
        """Those of the policy that looks at most; arguments as of `of_policy`, one map for each."""
        found = [cls.of_policy(each, **changes) for each in metadata]
        return max(found, key=lambda each: each.frame_bytes)
