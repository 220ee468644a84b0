"""vla-eval's model server: a websocket whose client speaks first, and two pages beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from rt2_jax import __version__
from rt2_jax.serving.observation_keys import view_of
from rt2_jax.serving.requests import Schema
from rt2_jax.serving.service import PolicyService, message, say_once
from rt2_jax.serving.tasks import ServedTask
from rt2_jax.serving.wires.errors import ENDING, say, sentence
from rt2_jax.serving.wires.vla_eval_frames import PROTOCOL_VERSION, Frame, pack, unpack
from rt2_jax.serving.wires.vla_eval_specs import Convention

_HARNESS = "0.8.0"  # the release whose protocol this is
_WRIST = ("wrist", "gripper", "hand")  # words in names of cameras that are not the main one


async def converse(socket: WebSocket, service: PolicyService) -> None:
    """Serves one connection, accepted already, until the client leaves.

    Args:
      socket: its address may choose a task, and say what the benchmark wants: `Convention`.
      service: that answers.
    """
    name = service.enter()
    conversation = _Conversation(name, service, dict(socket.query_params))
    try:
        while True:
            received = await socket.receive()
            if received["type"] == "websocket.disconnect":
                return
            answer = await conversation.answer(received.get("bytes"))
            if answer is not None:
                await socket.send_bytes(pack(answer))
    except WebSocketDisconnect:
        pass
    finally:
        await service.leave(name)


class _Conversation:
    """One benchmark's episodes, one after the other.

    The benchmark executes one action for each observation. Of a policy that answers with several,
    the others are served for the next observations, which the policy then does not see.
    """

    def __init__(self, name: str, service: PolicyService, query: Mapping[str, str]) -> None:
        self._name = name
        self._service = service
        self._query = query
        self._told: set[str] = set()
        self._left: deque[tuple[np.ndarray, bool]] = deque()
        self._step = 0

    async def answer(self, data: bytes | None) -> Frame | None:
        """The frame that answers a frame; None where the protocol wants none."""
        seq: Any = 0
        try:
            if data is None:
                raise ValueError("found a text frame, expected a binary msgpack frame")
            frame = unpack(data)
            seq = frame.seq
            if frame.type == "hello":
                return Frame("hello", self._hello(frame.payload), seq)
            if frame.type == "episode_start":
                await self._begin()
                return None
            if frame.type in ("episode_end", "error"):
                self._left.clear()
                return None
            if frame.type != "observation":
                raise ValueError(
                    f"found a frame of type {frame.type[:40]!r}, expected hello, episode_start, "
                    "observation or episode_end"
                )
        except (KeyError, TypeError, ValueError) as error:
            refused = self._service.refuse(self._name, error)
            return Frame("error", {"error": say(refused)}, seq)
        return await self._act(frame)

    def _hello(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        version = payload.get("protocol_version")
        if version != PROTOCOL_VERSION:
            raise ValueError(
                f"found protocol version {version!r}, expected {PROTOCOL_VERSION}: this server "
                f"speaks that of vla-eval {_HARNESS}"
            )
        _, convention = self._convention()
        hello: dict[str, Any] = {
            "harness_version": _HARNESS,
            "protocol_version": PROTOCOL_VERSION,
            "model_server": f"rt2_jax {__version__}",
            "capabilities": {},
        }
        if params := convention.observation_params():
            hello["observation_params"] = params
        hello["action_spec"] = convention.action_spec()
        hello["observation_spec"] = convention.observation_spec()
        return hello

    def _convention(self) -> tuple[ServedTask, Convention]:
        task = self._service.tasks.choose(self._query)
        return task, Convention(task.schema, self._query)

    async def _begin(self) -> None:
        self._left.clear()
        self._step = 0
        await self._service.reset(self._name, self._name)

    async def _act(self, frame: Frame) -> Frame:
        step, self._step = self._step, self._step + 1
        warnings: list[str] = []
        if not self._left:
            try:
                task, convention = self._convention()
            except (KeyError, ValueError) as error:  # of the URL; said to its hello already
                return Frame("error", {"error": sentence("refused", message(error))}, frame.seq)
            request = self._request(frame, step, task.schema)
            exchange = await self._service.ask(request, self._name, lambda done: "", task)
            if exchange.outcome != "answered":
                return Frame("error", {"error": say(exchange)}, frame.seq)
            assert exchange.answer is not None
            actions, ends = convention.actions(exchange.answer.result["actions"])
            self._left.extend(zip(actions, ends.tolist(), strict=True))
            warnings = say_once(exchange.warnings, self._told, self._name)
        action, ends_here = self._left.popleft()
        payload: dict[str, Any] = {"actions": action}
        if ends_here:
            payload["episode_ends"] = True
        if warnings:
            payload["warnings"] = warnings
        return Frame("action", payload, frame.seq)

    def _request(self, frame: Frame, step: int, schema: Schema) -> dict[str, Any]:
        """An observation as the service reads it."""
        request = {k: v for k, v in frame.payload.items() if k not in ("task", "embodiment")}
        if "task_description" in request:
            request["prompt"] = request.pop("task_description")
        if isinstance(request.get("images"), Mapping):
            request["images"] = _named(request["images"], schema)
        return {**request, "step": step, "seq": frame.seq}


class Pages:
    """The routes `/health` and `/config`.

    Args:
      service: that they are about.
    """

    def __init__(self, service: PolicyService) -> None:
        self._service = service

    async def health(self, request: Request) -> Response:
        """Whether observations are answered."""
        if self._service.draining or not self._service.working:
            return JSONResponse({"status": "not ready"}, ENDING)
        return JSONResponse({"status": "ok"})

    async def config(self, request: Request) -> Response:
        """The two knobs; those in the query are set before."""
        applied: dict[str, float] = {}
        errors: list[str] = []
        for name in request.query_params:
            text = request.query_params.getlist(name)[-1]
            if name not in self._service.knobs:
                errors.append(f"unknown key: {name[:60]}")
                continue
            try:
                value = int(text) if name == "max_batch_size" else float(text)
                self._service.set_knob(name, value)
            except ValueError as error:
                errors.append(f"bad value for {name}: {error}")
                continue
            applied[name] = value
        if errors and not applied:
            return JSONResponse({"errors": errors}, 422)
        said: dict[str, Any] = {"applied": applied, "config": self._service.knobs}
        return JSONResponse({**said, "errors": errors} if errors else said)


def _named(images: Mapping[Any, Any], schema: Schema) -> dict[Any, Any]:
    """Pictures under names that are understood: every benchmark has names of its own.

    The first camera that is not a wrist's is the main one, as benchmarks order them.
    """
    views = {name: view_of(str(name), schema.views, schema.cameras) for name in images}
    taken = set(views.values())
    named: dict[Any, Any] = {}
    for name, picture in images.items():
        is_wrist = any(word in str(name).lower() for word in _WRIST)
        as_known = "wrist_image" if is_wrist else "image"
        view = view_of(as_known, schema.views, schema.cameras)
        if views[name] is None and view is not None and view not in taken:
            taken.add(view)
            name = as_known
        named[name] = picture
    return named
