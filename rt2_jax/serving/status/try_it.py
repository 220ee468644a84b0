"""The page's form: a question to the policy, through the same service as every robot's."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from rt2_jax.serving.exchange import Exchange
from rt2_jax.serving.limits import Limits
from rt2_jax.serving.pictures import BusyError, PictureDecoder
from rt2_jax.serving.service import PolicyService
from rt2_jax.serving.status.answer_json import answer_json, short_list

SESSION = "try-it"
_STATUS = {"answered": 200, "refused": 422, "busy": 429, "late": 504, "failed": 500}


class TryIt:
    """Answers `POST /status/try`.

    The body is JSON: `instruction`, `images` (view -> base64 of a JPEG or PNG), and `state` where
    the policy reads one. Each question begins an episode of session `try-it`.

    Args:
      service: that is asked.
    """

    def __init__(self, service: PolicyService) -> None:
        self._service = service
        self._limits = Limits.of_policy({"views": service.schema.views, **service.schema.metadata})
        self._decoder = PictureDecoder(self._limits)

    async def answer(self, request: Request) -> Response:
        """200 with the answer, or another status with `error`."""
        # Pages of other sites can send anything but this without asking the server first.
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return _error(415, "expected Content-Type: application/json")
        try:
            body = await self._body(request)
        except ClientDisconnect:
            return Response()
        if body is None:
            return _error(413, f"a question may have {self._limits.body_bytes} bytes")
        try:
            question = await self._question(body)
        except BusyError as error:
            return _error(429, str(error))
        except (TypeError, ValueError) as error:
            return _error(422, str(error))
        if not self._service.draining:
            await self._service.reset(SESSION, SESSION)
        done = await self._service.ask(question, SESSION, lambda exchange: b"")
        return JSONResponse(_reply(done), _STATUS.get(done.outcome, 500))

    async def _body(self, request: Request) -> bytes | None:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self._limits.body_bytes:
                return None
            parts.append(part)
        return b"".join(parts)

    async def _question(self, body: bytes) -> dict[str, Any]:
        try:
            data = json.loads(body)
        except ValueError as error:
            raise ValueError(f"request: no JSON ({error})") from error
        if not isinstance(data, Mapping) or not isinstance(data.get("images", {}), Mapping):
            raise TypeError("request: expected an object with instruction, images and state")
        encoded = {str(view): _bytes(text, view) for view, text in data.get("images", {}).items()}
        question = {
            "images": await self._decoder.decode_pictures(encoded),
            "prompt": data.get("instruction"),
            "state": data.get("state"),
        }
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
