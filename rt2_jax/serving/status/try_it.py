"""The page's form: a question to the policy, through the same service as every robot's."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rt2_jax.serving.exchange import Exchange
from rt2_jax.serving.service import PolicyService
from rt2_jax.serving.status.answer_json import answer_json, short_list
from rt2_jax.serving.wires.errors import STATUS
from rt2_jax.serving.wires.http import HttpError, read_body

SESSION = "try-it"


class TryIt:
    """Answers `POST /status/try`.

    The body is JSON: `instruction`, `images` (view -> base64 of a JPEG or PNG), and `state` where
    the policy reads one. Each question begins an episode of session `try-it`. Of a server of
    several tasks the first one is asked.

    Args:
      service: that is asked.
    """

    def __init__(self, service: PolicyService) -> None:
        self._service = service

    async def answer(self, request: Request) -> Response:
        """200 with the answer, or another status with `error`."""
        # Pages of other sites can send anything but this without asking the server first.
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return _error(415, "expected Content-Type: application/json")
        try:
            question = _question(await read_body(request, self._service, json.loads))
        except HttpError as error:
            return _error(error.status, str(error))
        except (TypeError, ValueError) as error:
            return _error(422, str(error))
        if not self._service.draining:
            await self._service.reset(SESSION, SESSION)
        task = self._service.tasks.served[0]
        done = await self._service.ask(question, SESSION, lambda exchange: b"", task)
        return JSONResponse(_reply(done), STATUS.get(done.outcome, 500))


def _question(data: Any) -> dict[str, Any]:
    """A request as `Schema.read` takes it."""
    if not isinstance(data, Mapping) or not isinstance(data.get("images", {}), Mapping):
        raise TypeError("request: expected an object with instruction, images and state")
    images = {str(view): _bytes(text, view) for view, text in data.get("images", {}).items()}
    question = {"images": images, "prompt": data.get("instruction"), "state": data.get("state")}
    return {name: value for name, value in question.items() if value is not None}


def _bytes(text: Any, view: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ValueError(
            f"request: images/{view}: found no base64 ({error}), expected that of a JPEG or PNG"
        ) from error


def _reply(done: Exchange) -> dict[str, Any]:
    reply: dict[str, Any] = {"outcome": done.outcome, "error": done.error}
    if done.answer is not None:
        reply["answer"] = answer_json(done.answer)
        reply["warnings"] = short_list(done.warnings)
        reply["total_ms"] = round(1000 * done.total_s, 3)
    return reply


def _error(status: int, error: str) -> Response:
    return JSONResponse({"outcome": "refused", "error": error}, status)
