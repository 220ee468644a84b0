"""What a policy server says instead of an answer, as exceptions."""

from __future__ import annotations

import re
from typing import Dict, Optional, Type

_NUMBERED = re.compile(r"[A-Z]+ \(seq (\d+)\)")


class PolicyServerError(RuntimeError):
    """The server refused a request and said why; nothing was decided, and it goes on serving."""


class DeadlineExceeded(PolicyServerError):
    """The answer could not be ready within `budget_ms`, or came later; there is none."""


class RequestSuperseded(PolicyServerError):
    """A newer request of the same session came before this one was begun."""


class ServerBusy(PolicyServerError):
    """The server's queue is full; ask again with the next picture."""


class StaleAnswer(PolicyServerError):
    """A newer request of the session was answered first, or its episode ended: not for use."""


class UnsafeAction(PolicyServerError):
    """The answer was beyond the server's limits for the robot, or too unsure; it is not sent."""


_BY_WORD: Dict[str, Type[PolicyServerError]] = {
    "DEADLINE": DeadlineExceeded,
    "SUPERSEDED": RequestSuperseded,
    "BUSY": ServerBusy,
    "UNSAFE": UnsafeAction,
}


def error_of(text: str, where: str) -> PolicyServerError:
    """The exception of a text frame, chosen by its first word.

    Args:
      text: of the frame, e.g. `DEADLINE: waited 210 ms ...`.
      where: the server's address, for the message.
    """
    word = re.match(r"[A-Z]*", text)
    return _BY_WORD.get(word.group() if word else "", PolicyServerError)(f"{where}: {text}")


def number_of(text: str) -> Optional[int]:
    """Which request a text frame answers, where it says so: 7 of `BUSY (seq 7): ...`."""
    found = _NUMBERED.match(text)
    return int(found.group(1)) if found else None
