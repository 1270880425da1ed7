"""Application: what is served, without the sockets: an Exchange in, a Reply out, always."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from forwardpass.errors import ForwardpassError
from forwardpass.nouns import folders
from forwardpass.serving import protocols
from forwardpass.serving.asking import Service
from forwardpass.serving.bodies import plain
from forwardpass.serving.exchanges import Exchange, RefusedError, Reply, Route
from forwardpass.serving.gates import Gate
from forwardpass.serving.gauges import refused
from forwardpass.serving.options import ServeOptions
from forwardpass.serving.routing import Errors, MethodRefusedError, Router, WayIn, told

_log: Final = logging.getLogger("forwardpass.serving")


class Routes(Protocol):
    """What has routes: a file of the folder of protocols, or what serves something else."""

    def routes(
        self, services: Mapping[str, Service], options: ServeOptions, /
    ) -> Sequence[Route]: ...


class Application:
    """All protocols, for these models.

    Args:
        files: of protocols; those of the folder where none are given.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        options: ServeOptions,
        files: Sequence[Routes] | None = None,
    ) -> None:
        chosen: Any = folders.plugins(protocols).values() if files is None else files
        self._router = Router(_routes(chosen, services, options))
        self._gate = Gate(options)
        self._body_bytes = options.limits.body_bytes

    def takes(self, method: str, path: bytes) -> bool:
        """Whether something is at this path, for this method."""
        try:
            self._router.way(method, path)
        except RefusedError:
            return False
        return True

    def admit(self, method: str, target: bytes, headers: Mapping[bytes, bytes]) -> WayIn:
        """The way of a request, from its head alone; one that refuses it where it may not come."""
        if not target.startswith(b"/"):  # "http://host/path", as it is sent to a proxy
            target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
        path = target.partition(b"?")[0]
        try:
            way = self._router.way(method, path)
        except RefusedError as error:
            way = WayIn.refusing(error, path.decode("latin-1"))
        try:
            self._gate.check(method, headers, open=way.open)
        except RefusedError as error:
            return WayIn.refusing(error, way.path, way.errors)
        return way

    async def answer(self, way: WayIn, exchange: Exchange) -> Reply:
        """What comes of it. An error tells neither paths nor stack; the log has both."""
        try:
            if b"content-encoding" in exchange.headers and not way.refuses:
                exchange.body = await plain(exchange, self._body_bytes)
            reply = await way.handler(exchange)
        except RefusedError as error:
            reply = _refusal(error, way.errors)
        except ForwardpassError as error:
            reply = _refusal(_known(error, exchange), way.errors)
        except Exception:  # noqa: BLE001 - whatever it is, the client gets an answer
            reply = _refusal(_unknown(exchange), way.errors)
        if b"origin" in exchange.headers:
            reply.headers.extend(self._gate.shared(exchange.headers))
        return reply


def _routes(
    files: Iterable[Routes], services: Mapping[str, Service], options: ServeOptions
) -> Iterable[tuple[Route, Errors]]:
    for file in files:
        errors: Errors = getattr(file, "errors", told)
        for route in file.routes(services, options):
            yield route, errors


def _refusal(error: RefusedError, errors: Errors) -> Reply:
    """A refusal in the words of a protocol, with what HTTP says of it in headers."""
    refused(error)
    try:
        reply = errors(error)
    except Exception:  # noqa: BLE001 - a protocol without words for it: the client gets an answer
        _log.exception("a protocol cannot say: %s", error)
        reply = told(error)
    if error.retry_after is not None:
        seconds = max(1, math.ceil(error.retry_after))
        reply.headers.append((b"retry-after", b"%d" % seconds))
    if isinstance(error, MethodRefusedError):
        reply.headers.append((b"allow", error.allow.encode("ascii")))
    if error.status == 401:
        reply.headers.append((b"www-authenticate", b"Bearer"))
    return reply


def _known(error: ForwardpassError, exchange: Exchange) -> RefusedError:
    """An error of ours that no protocol expected: the request may be the reason, or this server."""
    if error.http_status < 500:
        return RefusedError(error.http_status, str(error))
    return _unknown(exchange)


def _unknown(exchange: Exchange) -> RefusedError:
    _log.exception("request %s: %s %s", exchange.id, exchange.method, exchange.path)
    return RefusedError(
        500, f"an error of this server; its log says more under request {exchange.id}",
        reason="internal",
    )  # fmt: skip
