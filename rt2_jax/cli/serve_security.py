"""Flags of `rt2 serve` for who may connect, and how much they may send."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
from typing import Any


def add_security_flags(parser: argparse.ArgumentParser) -> None:
    """Adds them; docs/security.md says what they mean."""
    parser.add_argument(
        "--token-file",
        type=pathlib.Path,
        help="clients must show one of its tokens: `name token [requests per second]` a line, or a "
        "token and nothing else; it is read again when it changes, and on SIGHUP",
    )
    parser.add_argument("--tls-cert", type=pathlib.Path, help="PEM: clients connect to wss://")
    parser.add_argument("--tls-key", type=pathlib.Path, help="PEM, without a passphrase")
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="of size or time, such as pixels=8000000 or request_s=60; docs/security.md names them",
    )
    parser.add_argument(
        "--debug-errors",
        action="store_true",
        help="clients are told the traceback of a policy that failed, and paths of this machine",
    )
    parser.add_argument(
        "--insecure", action="store_true", help="no token although other machines can connect"
    )


def security_options(args: argparse.Namespace) -> dict[str, Any]:
    """What the flags say, as fields of `ServerOptions`; `limits`: what to change of them.

    Raises:
      OSError, ValueError: a file cannot be read, an address that needs tokens, or no such limit.
    """
    from rt2_jax.serving.keys import Keys
    from rt2_jax.serving.server import check_address, is_own
    from rt2_jax.serving.tls import Certificate

    try:
        keys = None if args.token_file is None else Keys.read(args.token_file)
    except OSError as error:
        raise ValueError(f"--token-file {args.token_file}: {error.strerror}") from error
    check_address(args.host, keys, args.insecure)
    if args.tls_key is not None and args.tls_cert is None:
        raise ValueError("--tls-key is given, but no --tls-cert")
    if args.tls_cert is not None:
        Certificate(args.tls_cert, args.tls_key)
    elif not is_own(args.host):
        print("no --tls-cert: tokens and pictures can be read on their way", file=sys.stderr)
    return {
        "keys": keys,
        "limits": _limits(args.limit),
        "tls_cert": args.tls_cert,
        "tls_key": args.tls_key,
        "debug_errors": args.debug_errors,
    }


def _limits(words: list[str]) -> dict[str, Any]:
    from rt2_jax.serving.limits import Limits

    kinds: dict[str, Any] = {
        field.name: type(field.default) for field in dataclasses.fields(Limits)
    }
    changes: dict[str, Any] = {}
    for word in words:
        name, _, number = word.partition("=")
        try:
            changes[name] = kinds[name](number)
        except (KeyError, ValueError):
            raise ValueError(
                f"--limit: found {word!r}, expected NAME=NUMBER with a name of {', '.join(kinds)}"
            ) from None
    Limits(**changes)
    return changes
