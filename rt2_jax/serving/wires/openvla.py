"""OpenVLA's `POST /act` (its `deploy.py` and OpenVLA-OFT's), and that of MolmoAct2 and GR00T."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rt2_jax.serving.exchange import Exchange
from rt2_jax.serving.requests import Schema
from rt2_jax.serving.service import PolicyService, message
from rt2_jax.serving.tasks import ServedTask
from rt2_jax.serving.wires.errors import ENDING, sentence
from rt2_jax.serving.wires.http import (
    HttpError,
    Sessions,
    error_response,
    failure,
    guarded,
    read_body,
)
from rt2_jax.serving.wires.json_arrays import dumps, loads

_KEY = "unnorm_key"
# OpenVLA's name of a data set -> that of this project's action space.
_DATA_SETS = {"bridge_orig": "bridge"}
_NAMES = {"task", "embodiment"}
_ENDS = "x-rt2-episode-ends"
_WARNINGS = "x-rt2-warnings"
_LONGEST_HEADER = 4096


class Act:
    """The route `/act`.

    Args:
      service: answers.
    """

    def __init__(self, service: PolicyService) -> None:
        self._service = service
        self._sessions = Sessions(service)

    async def get(self, request: Request) -> Response:
        """Whether it is ready: MolmoAct2's clients ask so."""
        if self._service.draining or not self._service.working:
            return error_response(ENDING, sentence("refused", "nothing is being answered"))
        return JSONResponse({"status": "ok"})

    async def post(self, request: Request) -> Response:
        """An action for an observation, in the form of the client that asks."""
        response = await guarded(lambda: self._answer(request))
        if response.status_code != 200 and request.query_params.get("compat") == "error200":
            return JSONResponse("error")  # what OpenVLA's server says, whatever went wrong
        return response

    async def _answer(self, request: Request) -> Response:
        body, encoded = await read_body(request, self._service, _parse)
        frame = {key: value for key, value in body.items() if key != _KEY}
        with self._sessions.enter(request, body) as (session, named):
            frame["session"] = session
            task = self._task(body, request)
            exchange = await self._service.ask(frame, session, lambda done: "", task)
        if exchange.outcome == "answered":
            response = self._response(exchange, body, encoded)
        else:
            response = failure(exchange, self._service)
        if not named:
            response.background = BackgroundTask(self._sessions.forget, session)
        return response

    def _task(self, body: dict[str, Any], request: Request) -> ServedTask | None:
        """The task that the body, the address or the key of statistics means; None if none does."""
        tasks, key = self._service.tasks, body.get(_KEY)
        named = body if _NAMES & set(body) else request.query_params
        try:
            left = [tasks.choose(named)] if _NAMES & set(named) else list(tasks.served)
        except (KeyError, ValueError) as error:
            raise HttpError(422, message(error)) from error
        if key is not None:
            known = sorted({name for each in left for name in each.schema.statistics_keys})
            left = [each for each in left if _is_key(key, each.schema)]
            if not left:
                raise HttpError(
                    422,
                    f"request: {_KEY}: found {str(key)[:60]!r}, expected one of {known}: actions "
                    "are scaled by the statistics of the robot that the policy was trained on",
                )
        return left[0] if len(left) == 1 else None

    def _response(self, exchange: Exchange, body: dict[str, Any], encoded: bool) -> Response:
        assert exchange.answer is not None and exchange.task is not None
        schema = exchange.task.schema
        actions, ends = schema.plain_actions.convert(exchange.answer.result["actions"])
        data: Any
        if "image" in body:
            data, ends = actions[0], ends[:1]
        elif "full_image" in body:
            data = list(actions)
        else:
            data = {
                "actions": actions,
                "dt_ms": 1000 / schema.action_space.control_rate_hz,
                "episode_ends": ends.tolist(),
                "warnings": list(exchange.warnings),
            }
        text = dumps(data)
        return Response(
            json.dumps(text) if encoded else text,
            media_type="application/json",
            headers=_headers(ends, exchange),
        )


def _is_key(key: Any, schema: Schema) -> bool:
    name = str(key)
    return name in schema.statistics_keys or _DATA_SETS.get(name) == schema.action_space.name


def _headers(ends: np.ndarray, exchange: Exchange) -> dict[str, str]:
    headers = {_ENDS: ",".join(str(int(each)) for each in ends)}
    warnings = list(exchange.warnings)
    while warnings and len(json.dumps(warnings)) > _LONGEST_HEADER:
        warnings.pop()
    if warnings:
        headers[_WARNINGS] = json.dumps(warnings)
    return headers


def _parse(text: bytes) -> tuple[dict[str, Any], bool]:
    """The body, and whether it was encoded twice."""
    body = loads(text)
    encoded = isinstance(body, dict) and "encoded" in body
    if encoded:
        if len(body) > 1 or not isinstance(body["encoded"], str):
            raise ValueError(
                f"found 'encoded' beside {sorted(set(body) - {'encoded'})}, expected it alone, "
                "with the JSON of the request as text"
            )
        body = loads(body["encoded"])
    if not isinstance(body, dict):
        raise ValueError(
            f"found {type(body).__name__}, expected an object with 'image' and 'instruction'"
        )
    return body, encoded
