"""openpi's websocket: the server says its metadata first, then one frame answers each frame."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from rt2_jax.client.frames import pack, unpack
from rt2_jax.serving.exchange import Exchange
from rt2_jax.serving.input_checks import check_label
from rt2_jax.serving.service import PolicyService, say_once
from rt2_jax.serving.wires.errors import say

PLAIN = "plain"
"""First word of a path: actions without `terminate`, as Bridge's clients of openpi take them."""


async def converse(socket: WebSocket, service: PolicyService) -> None:
    """Serves one connection, accepted already, until the client leaves."""
    name = service.enter()
    told: set[str] = set()
    plain = wants_plain(socket.url.path)
    previous_ms: float | None = None
    try:
        form = {"actions_form": PLAIN} if plain else {}
        await socket.send_bytes(pack({**service.schema.metadata, **form}))
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            begin = time.perf_counter()
            answer = await _answer(message.get("bytes"), name, service, told, previous_ms, plain)
            if isinstance(answer, str):
                await socket.send_text(answer)
            else:
                await socket.send_bytes(answer)
            previous_ms = 1000 * (time.perf_counter() - begin)
    except WebSocketDisconnect:
        pass
    finally:
        await service.leave(name)


async def _answer(
    frame: bytes | None,
    name: str,
    service: PolicyService,
    told: set[str],
    previous_ms: float | None,
    plain: bool,
) -> bytes | str:
    """A frame of the answer, or the text of an error; the connection stays open."""
    try:
        if frame is None:
            raise TypeError("request: found a text frame, expected a binary msgpack frame")
        data = unpack(frame)
        if isinstance(data, dict) and set(data) == {"reset"}:
            check_label(data["reset"], "reset")
    except (TypeError, ValueError) as error:
        return say(service.refuse(name, error))
    if isinstance(data, dict) and set(data) == {"reset"}:
        await service.reset(str(data["reset"] or name), name)
        return pack({"reset": True})
    exchange = await service.ask(
        data,
        name,
        lambda done: pack(
            {
                **_reply(done, say_once(done.warnings, told, name), previous_ms),
                **(_plain_actions(done, service) if plain else {}),
            }
        ),
    )
    return exchange.reply if exchange.outcome == "answered" else say(exchange)


def wants_plain(path: str) -> bool:
    """Whether a path asks for actions without `terminate`: `/plain`.

    openpi's client adds a port behind the whole address, so `/plain:8000` means the same.
    """
    return path.split("/")[1].partition(":")[0] == PLAIN


def _plain_actions(exchange: Exchange, service: PolicyService) -> dict[str, Any]:
    assert exchange.answer is not None
    actions, ends = service.schema.plain_actions.convert(exchange.answer.result["actions"])
    return {"actions": actions.astype(np.float32), "episode_ends": ends}


def _reply(exchange: Exchange, warnings: list[str], previous_ms: float | None) -> dict[str, Any]:
    answer, request = exchange.answer, exchange.request
    assert answer is not None and request is not None
    timing = {
        "infer_ms": 1000 * answer.infer_s,
        "queue_ms": 1000 * answer.queue_s,
        "batch_size": answer.batch_size,
    }
    if previous_ms is not None:
        timing["prev_total_ms"] = previous_ms
    return {
        **{key: _plain(value) for key, value in answer.result.items()},
        "seq": request.seq,
        "session": request.observation.session,
        "warnings": warnings,
        "server_timing": timing,
        "policy_timing": {"infer_ms": timing["infer_ms"]},
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
