"""The certificate that a server shows, for TLS."""

from __future__ import annotations

import os
import ssl

from forwardpass.errors import UsageError
from forwardpass.serving.options import ServeOptions


def secured(options: ServeOptions) -> ssl.SSLContext | None:
    """What the options say of TLS; None where they say nothing. Raises UsageError where it cannot
    be."""
    if (options.tls_cert is None) != (options.tls_key is None):
        raise UsageError("--tls-cert and --tls-key go together: give both")
    if options.tls_cert is None or options.tls_key is None:
        return None
    for option, path in (("--tls-cert", options.tls_cert), ("--tls-key", options.tls_key)):
        if not os.access(path, os.R_OK):
            raise UsageError(f"{option} {path}: no file that can be read")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])

    def no_password() -> str:
        raise UsageError(f"{options.tls_key}: the key is encrypted; give one that is not")

    try:
        context.load_cert_chain(options.tls_cert, options.tls_key, password=no_password)
    except OSError as error:  # ssl.SSLError is one
        raise UsageError(
            f"--tls-cert {options.tls_cert} --tls-key {options.tls_key}: {error.strerror or error}"
        ) from error
    return context
