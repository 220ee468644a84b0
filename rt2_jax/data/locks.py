"""One writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def only_writer(lock: pathlib.Path, refusal: str) -> Iterator[None]:
    """Holds a lock file, made if absent; the system lets go when this process ends.

    Raises:
      OSError: `refusal`, another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(refusal) from error
        yield
