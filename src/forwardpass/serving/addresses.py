"""Where a server is found: its socket, and whether it may be there."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from typing import Final

from forwardpass.errors import UsageError
from forwardpass.serving.certificates import secured
from forwardpass.serving.gates import is_loopback
from forwardpass.serving.options import ServeOptions

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[!-.0-~]+/?", re.IGNORECASE | re.ASCII)
BACKLOG: Final = 2_048
"""Connections that wait to be taken: as many as may be open, if all come at once."""


def checked(options: ServeOptions) -> None:
    """Raises UsageError for what cannot be served so."""
    names = [model.name for model in options.models]
    if not names:
        raise UsageError("there is no model to serve; give a reference, such as model.py")
    for name in names:
        if not name.strip() or "/" in name or not name.isprintable():
            raise UsageError(
                f"{name!r} names a served model, and is to be a part of a path: something that can "
                "be printed, without `/`; write name=reference"
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        one = next(model.forward for model in options.models if model.name == twice[0])
        raise UsageError(f"two models are named {twice[0]!r}; write other={one} for one of them")
    secured(options)
    for origin in options.cors:
        if origin != "*" and _ORIGIN.fullmatch(origin) is None:
            raise UsageError(
                f"--cors {origin}: a browser never says such an origin; write scheme, host and "
                "port, as https://example.org or http://localhost:3000, or * for any"
            )
    if options.otlp is not None and re.match("https?://[^/]", options.otlp) is None:
        raise UsageError(f"--otlp {options.otlp}: no URL; write http://localhost:4318")
    token = options.token
    if token is not None and not (token and token.isascii() and token.isprintable()):
        raise UsageError("--token: it is empty, or has what no header holds; use printable ASCII")


def bound(options: ServeOptions) -> socket.socket:
    """The socket that listens at host and port; port 0 is any that is free.

    Raises UsageError where the address cannot be had, and for one that other machines reach where
    no token is asked for.
    """
    host, port = options.host, options.port
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError, OverflowError) as error:
        raise UsageError(f"--host {host}: no address of this machine: {error}") from None
    if options.token is None and not all(is_loopback(str(address[0])) for *_, address in found):
        raise UsageError(
            f"--host {host} lets other machines in: give --token, which requests must bear then, "
            "or serve on 127.0.0.1"
        )
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        raise UsageError(f"{_refusal(error, host, port)}; give another, or --port 0") from None
    return listening


def url(options: ServeOptions, port: int) -> str:
    """Where a client on this machine finds it."""
    host = options.host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass  # a name
    else:
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
    host = f"[{host}]" if ":" in host else host or "127.0.0.1"
    return f"http{'s' if options.tls_cert else ''}://{host}:{port}"


def _refusal(error: Exception, host: str, port: int) -> str:
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return f"port {port} of {host} is in use by another process"
    if code in (errno.EACCES, errno.EPERM):
        return f"port {port} of {host} may not be opened by this user"
    if code == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine"
    return f"port {port} of {host} cannot be opened: {error}"
