"""What a client is told that asks for more than the server takes on."""

from __future__ import annotations


class BusyError(RuntimeError):
    """There is more to do than the server takes on; the request may be sent again a little later.

    Attributes:
      retry_s: how much later.
    """

    def __init__(self, message: str, retry_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_s = retry_s
