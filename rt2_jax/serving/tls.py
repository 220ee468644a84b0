"""The server's certificate, checked before a model is loaded, and read again when it is renewed."""

from __future__ import annotations

import pathlib
import ssl


class Certificate:
    """A certificate and its key, as files.

    Args:
      cert: PEM, with the chain behind it.
      key: PEM, without a passphrase; None if it is in `cert`.

    Attributes:
      context: for a server; it has the files' content as of the last reading.

    Raises:
      ValueError: they cannot be read, or do not belong together.
    """

    def __init__(self, cert: pathlib.Path, key: pathlib.Path | None = None) -> None:
        self._cert, self._key = cert, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.read()

    def read(self) -> None:
        """Reads the files; connections from now on see what is in them.

        Raises:
          ValueError: as at the start; what was read before stays.
        """
        files = f"--tls-cert {self._cert}" + (f" --tls-key {self._key}" if self._key else "")
        try:
            # Into a context of its own first: half a renewal must not be served.
            for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.context):
                # Without this OpenSSL would ask for a passphrase at the terminal, and wait.
                context.load_cert_chain(self._cert, self._key, lambda: "")
        except (OSError, ssl.SSLError, ValueError) as error:
            alone = "" if self._key else " (--tls-key is not given, so both must be in one file)"
            raise ValueError(
                f"{files}: {error}; expected PEM files of a certificate and of its own key, "
                f"without a passphrase{alone}"
            ) from error
