"""Who may ask, and how often: named keys with a rate each, from a file that may change."""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import pathlib
import re
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

_LOG = logging.getLogger("rt2_jax.serving")
_HASHED = "sha256:"
_FORM = "name token [requests per second], one a line"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_RATE = re.compile(r"(?=.*[1-9])\d*\.?\d+")
_SHA256 = re.compile(_HASHED + r"[0-9a-fA-F]{64}")
_SHORT = 16
ONE_KEY = "default"
"""Name of the key of a file that holds a token and nothing else."""


@dataclass
class Key:
    """One client's, or one fleet's.

    Attributes:
      name: for logs and metrics; the token itself is in neither.
      digest: SHA-256 of the token; the token is not kept.
      rate: requests a second; a second's worth may come at once. None for any number.
      connections: open now.
      valid: whether the file still holds it.
    """

    name: str
    digest: bytes = field(repr=False)
    rate: float | None = None
    connections: int = 0
    valid: bool = True
    _tokens: float = field(default=math.inf, repr=False)
    _counted: float = field(default=0.0, repr=False)

    def take(self) -> float:
        """Counts a request; 0.0 if there was one left, else how many seconds until there is."""
        if self.rate is None:
            return 0.0
        now = time.monotonic()
        most = max(1.0, self.rate)
        self._tokens = min(most, self._tokens + (now - self._counted) * self.rate)
        self._counted = now
        if self._tokens < 1:
            return (1 - self._tokens) / self.rate
        self._tokens -= 1
        return 0.0


class Keys:
    """The keys of a server.

    Args:
      keys: at least one, of different names.
      path: that they were read from, and are read from again when it changes.

    Raises:
      ValueError: no key, or a name or token twice.
    """

    def __init__(self, keys: Iterable[Key], path: pathlib.Path | None = None) -> None:
        self._keys = list(keys)
        self._path = path
        self._seen = None if path is None else _state(path)
        names = [key.name for key in self._keys]
        if not names:
            raise ValueError(f"{path or 'keys'}: found no key, expected {_FORM}")
        if len({key.digest for key in self._keys}) < len(names) or len(set(names)) < len(names):
            raise ValueError(f"{path or 'keys'}: a name or a token is there twice among {names}")

    @classmethod
    def of_token(cls, token: str) -> Keys:
        """One key, named `ONE_KEY`."""
        return cls([Key(ONE_KEY, _digest(token))])

    @classmethod
    def read(cls, path: pathlib.Path) -> Keys:
        """The keys of a file, `name token [requests per second]` a line, `#` for comments.

        `sha256:` and 64 hexadecimal digits stand for the token that has this hash. A file with one
        word is one token, named `ONE_KEY`. A warning says when others may read the file.

        Raises:
          OSError: it cannot be read. ValueError: a line is none of these, and which.
        """
        if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            _LOG.warning("%s: others may read the tokens; run: chmod 600 %s", path, path)
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            raise ValueError(f"{path}: found bytes that are no text, expected {_FORM}") from None
        entries = [(i, line.split()) for i, line in enumerate(lines, 1)]
        entries = [(i, words) for i, words in entries if words and not words[0].startswith("#")]
        if len(entries) == 1 and len(entries[0][1]) == 1:
            return cls([Key(ONE_KEY, _digest(entries[0][1][0]))], path)
        return cls([_key(words, f"{path}, line {i}") for i, words in entries], path)

    def find(self, token: str) -> Key | None:
        """The key of a token; takes equally long whichever it is, and if it is none."""
        digest = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found

    def reread_if_changed(self, always: bool = False) -> None:
        """Reads the file again; connections of keys that are gone end with their next message.

        A file that cannot be read changes nothing, and is logged as an error.
        """
        if self._path is None:
            return
        state = _state(self._path)
        if state == self._seen and not always:
            return
        self._seen = state
        try:
            fresh = Keys.read(self._path)
        except (OSError, ValueError) as error:
            _LOG.error("the keys stay as they were: %s", error)
            return
        before = {(key.name, key.digest): key for key in self._keys}
        for i, key in enumerate(fresh._keys):
            if old := before.pop((key.name, key.digest), None):
                old.rate = key.rate
                fresh._keys[i] = old
        for old in before.values():
            old.valid = False
        self._keys = fresh._keys
        _LOG.warning("%s: read again: %d keys, %d gone", self._path, len(self._keys), len(before))


def _state(path: pathlib.Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:  # gone, perhaps while it is being replaced
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _key(words: list[str], where: str) -> Key:
    # No message says the words: one of them is a secret, perhaps not in the place of a secret.
    if len(words) not in (2, 3):
        raise ValueError(f"{where}: found {len(words)} words, expected {_FORM}")
    name, token, *rate = words
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{where}: the name must be at most 32 letters, digits, dots, dashes and underscores; "
            f"expected {_FORM}"
        )
    if rate and not _RATE.fullmatch(rate[0]):
        raise ValueError(f"{where}: the third word is no number above 0; expected {_FORM}")
    if len(token) < _SHORT:
        _LOG.warning("%s: the token is short enough to be guessed; openssl rand -hex 32", where)
    return Key(name, _digest(token, where), float(rate[0]) if rate else None)


def _digest(token: str, where: str = "token") -> bytes:
    if not token.startswith(_HASHED):
        return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
    if not _SHA256.fullmatch(token):
        raise ValueError(f"{where}: sha256: must be followed by 64 hexadecimal digits")
    return bytes.fromhex(token[len(_HASHED) :])
