"""`POST /v1/generate`: a question, a caption or a plan in words, where the model writes text."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rt2_jax.serving.service import PolicyService
from rt2_jax.serving.text import TextQuestion
from rt2_jax.serving.wires.errors import ENDING, STATUS
from rt2_jax.serving.wires.http import HttpError, guarded, read_body

_FIELDS = (
    "prompt",
    "image",
    "max_tokens",
    "temperature",
    "top_k",
    "num_samples",
    "seed",
    "budget_ms",
)


class Generate:
    """The route `/v1/generate`.

    Args:
      service: answers.
    """

    def __init__(self, service: PolicyService) -> None:
        self._service = service

    async def post(self, request: Request) -> Response:
        """Text for a prompt."""
        return await guarded(lambda: self._answer(request))

    async def _answer(self, request: Request) -> Response:
        service = self._service
        if service.text is None:
            raise HttpError(
                501,
                "this policy writes actions only, or the server was started without --questions",
            )
        if service.draining:
            raise HttpError(ENDING, "the server is ending; ask another, or again in a while")
        body = await read_body(request, service, _parse)
        outcome, texts, error = await service.answer_text(*_question(body))
        if outcome != "answered":
            raise HttpError(STATUS[outcome], error, outcome)
        unread = sorted(set(body) - set(_FIELDS))
        return JSONResponse(
            {
                "text": texts[0],
                "samples": texts,
                "checkpoint": service.schema.metadata.get("checkpoint"),
                "warnings": [f"nobody reads {name!r} of the request" for name in unread],
            }
        )


def _parse(text: bytes) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(body, dict):
        raise ValueError(f"found {type(body).__name__}, expected an object with 'prompt'")
    return body


def _question(body: dict[str, Any]) -> tuple[TextQuestion, bytes | None]:
    """The question, and its picture while it is still encoded."""
    fields = {key: body[key] for key in _FIELDS if body.get(key) is not None}
    picture = fields.pop("image", None)
    if "prompt" not in fields:
        raise HttpError(422, f"request: no 'prompt'; found {sorted(body)}: send text there")
    try:
        return TextQuestion(**fields), None if picture is None else _bytes(picture)
    except (TypeError, ValueError) as error:
        raise HttpError(422, f"request: {error}") from error


def _bytes(picture: Any) -> bytes:
    if not isinstance(picture, str):
        raise TypeError(
            f"image: found {type(picture).__name__}, expected base64 of a PNG or JPEG as text"
        )
    try:
        text = picture.partition(",")[2] if picture.startswith("data:") else picture
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"image: no base64 ({error})") from error
