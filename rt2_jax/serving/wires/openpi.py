"""openpi's websocket: the server says its metadata first, then one frame answers each frame.

Answers leave in the order of their requests. A client may send requests with a `seq` before it has
read the answers to earlier ones; a request without one begins when all before it are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from rt2_jax.client.frames import pack, unpack
from rt2_jax.serving.exchange import Exchange
from rt2_jax.serving.input_checks import check_label
from rt2_jax.serving.service import PolicyService, message, say_once
from rt2_jax.serving.tasks import ServedTask
from rt2_jax.serving.wires.errors import say

PLAIN = "plain"
"""First word of a path: actions without `terminate`, as Bridge's clients of openpi take them."""

_IN_FLIGHT = 32  # frames of a connection; with more, the next is not read yet


async def converse(socket: WebSocket, service: PolicyService, client: str | None = None) -> None:
    """Serves one connection, accepted already, until the client leaves.

    Args:
      socket: `?task=NAME` or `?embodiment=NAME` of its address choose among several tasks.
      service: that answers.
      client: as `PolicyService.ask` takes it.
    """
    task = None
    if {"task", "embodiment"} & set(socket.query_params):
        try:
            task = service.tasks.choose(socket.query_params)
        except (KeyError, ValueError) as error:
            await socket.send_text(f"REFUSED: {message(error)}")
            await socket.close(1008)
            return
    conversation = _Conversation(socket, service, task, client)
    try:
        metadata = service.tasks.metadata if task is None else task.schema.metadata
        form = {"actions_form": PLAIN} if wants_plain(socket.url.path) else {}
        await socket.send_bytes(pack({**metadata, **form}))
        await conversation.read()
    except WebSocketDisconnect:
        pass
    finally:
        await conversation.leave()


class _Conversation:
    """One connection: a task for each frame, each of which sends after the one before it."""

    def __init__(
        self,
        socket: WebSocket,
        service: PolicyService,
        task: ServedTask | None,
        client: str | None,
    ) -> None:
        self._socket = socket
        self._service = service
        self._task = task
        self._client = client
        self._plain = wants_plain(socket.url.path)
        self._name = service.enter()
        self._room = asyncio.Semaphore(_IN_FLIGHT)
        self._last: asyncio.Task | None = None
        self._alone = True  # whether the last frame has to be answered before the next begins
        self._sending: set[asyncio.Task] = set()
        self._told: set[str] = set()
        self._previous_ms: float | None = None

    async def read(self) -> None:
        """Reads until the client leaves."""
        while True:
            received = await self._socket.receive()
            if received["type"] == "websocket.disconnect":
                return
            begin = time.perf_counter()
            data, error = _read(received.get("bytes"))
            alone = not (isinstance(data, dict) and data.get("seq") is not None)
            if self._last is not None and (alone or self._alone):
                await asyncio.wait({self._last})
            await self._room.acquire()
            self._alone = alone
            self._last = asyncio.create_task(self._serve(data, error, begin, self._last))
            self._sending.add(self._last)
            self._last.add_done_callback(self._sending.discard)

    async def leave(self) -> None:
        """Ends; what the client still waits for is given up."""
        for each in self._sending:
            each.cancel()
        await self._service.leave(self._name)

    async def _serve(
        self, data: Any, error: Exception | None, begin: float, before: asyncio.Task | None
    ) -> None:
        try:
            answer = await self._answer(data, error)
            if before is not None:
                await asyncio.wait({before})
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # the client has gone
                if isinstance(answer, str):
                    await self._socket.send_text(answer)
                else:
                    await self._socket.send_bytes(answer)
            self._previous_ms = 1000 * (time.perf_counter() - begin)
        finally:
            self._room.release()

    async def _answer(self, data: Any, error: Exception | None) -> bytes | str:
        """A frame of the answer, or the text of an error; the connection stays open."""
        if error is not None:
            return say(self._service.refuse(self._name, error))
        if isinstance(data, dict) and set(data) == {"reset"}:
            await self._service.reset(str(data["reset"] or self._name), self._name)
            return pack({"reset": True})
        exchange = await self._service.ask(data, self._name, self._write, self._task, self._client)
        return exchange.reply if exchange.outcome == "answered" else say(exchange)

    def _write(self, exchange: Exchange) -> bytes:
        warnings = say_once(exchange.warnings, self._told, self._name)
        reply = _reply(exchange, warnings, self._previous_ms)
        return pack({**reply, **(_plain_actions(exchange) if self._plain else {})})


def _read(frame: bytes | None) -> tuple[Any, Exception | None]:
    try:
        if frame is None:
            raise TypeError("request: found a text frame, expected a binary msgpack frame")
        data = unpack(frame)
        if isinstance(data, dict) and set(data) == {"reset"}:
            check_label(data["reset"], "reset")
        return data, None
    except (TypeError, ValueError) as error:
        return None, error


def wants_plain(path: str) -> bool:
    """Whether a path asks for actions without `terminate`: `/plain`.

    openpi's client adds a port behind the whole address, so `/plain:8000` means the same.
    """
    return path.split("/")[1].partition(":")[0] == PLAIN


def _plain_actions(exchange: Exchange) -> dict[str, Any]:
    assert exchange.answer is not None and exchange.task is not None
    actions, ends = exchange.task.schema.plain_actions.convert(exchange.answer.result["actions"])
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
