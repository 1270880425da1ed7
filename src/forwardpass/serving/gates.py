"""Gate: who may ask: the token, the hosts by which this server is called, pages of other sites."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from ipaddress import ip_address

from forwardpass.serving.exchanges import RefusedError
from forwardpass.serving.options import ServeOptions

_EXPOSED = b"x-request-id, retry-after, inference-header-content-length"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at `host`, a name or an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


class Gate:
    """The rules of a server for who may ask."""

    def __init__(self, options: ServeOptions) -> None:
        self._token = None if options.token is None else options.token.encode("utf-8")
        self._cors = {origin.rstrip("/").lower().encode("latin-1") for origin in options.cors}
        self._host = options.host.lower()
        self._is_local = options.is_local or self._token is None
        self._hosts: set[bytes] = set()

    def check(self, method: str, headers: Mapping[bytes, bytes], *, open: bool) -> None:
        """Raises RefusedError: 401 without the token; 403 for what a page of another site asks.

        A page that is shown in a browser on this machine reaches loopback, too: under a name of its
        own (DNS rebinding), or across sites.
        """
        host = headers.get(b"host", b"").lower()
        if self._is_local and host not in self._hosts and b"host" in headers:
            self._require_local(host)  # a browser always says a host
        origin = headers.get(b"origin")
        if origin is not None and method == "POST" and not self._may_ask(origin, host):
            raise RefusedError(
                403, f"pages of {origin[:80].decode('latin-1')} may not ask this server; if they "
                "may, it is started with --cors ORIGIN", reason="origin",
            )  # fmt: skip
        if self._token is not None and not open:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            right = hmac.compare_digest(given.strip(), self._token)
            if scheme.lower() != b"bearer" or not right:
                raise RefusedError(
                    401, "the token of this server is needed, as Authorization: Bearer TOKEN",
                    reason="token",
                )  # fmt: skip

    def _require_local(self, host: bytes) -> None:
        name = host.decode("latin-1")
        bare = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        if not (is_loopback(bare) or bare.endswith(".localhost") or bare == self._host):
            remedy = "; with --token it may be called by any name" if self._token is None else ""
            raise RefusedError(
                403, f"Host: {name[:80]}: this server is called by localhost or 127.0.0.1{remedy}",
                reason="host",
            )  # fmt: skip
        if len(self._hosts) < 64:
            self._hosts.add(host)

    def _may_ask(self, origin: bytes, host: bytes) -> bool:
        known = origin.lower()
        own = known.partition(b"://")[2] == host
        return own or known in self._cors or b"*" in self._cors

    def shared(self, headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """Headers by which a browser lets a page of another origin read the reply (CORS)."""
        origin = headers.get(b"origin")
        if origin is None or not self._cors:
            return []
        if origin.lower() not in self._cors and b"*" not in self._cors:
            return [(b"vary", b"Origin")]
        shared = [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"Origin"),
        ]
        if b"access-control-request-method" in headers:
            wanted = headers.get(b"access-control-request-headers", b"")
            shared += [
                (b"access-control-allow-methods", b"GET, HEAD, POST, OPTIONS"),
                (b"access-control-allow-headers", wanted),
                (b"access-control-max-age", b"600"),
            ]
        return shared
