"""Router: a method and a path → the WayIn of a request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import unquote

import msgspec

from forwardpass.serving.exchanges import Exchange, Handler, RefusedError, Reply, Route

Errors: TypeAlias = Callable[[RefusedError], Reply]
_REMEMBERED: Final = 1_024


def told(error: RefusedError) -> Reply:
    """A refusal as {"error": …, "row": …}."""
    said: dict[str, str | int] = {"error": str(error)}
    if error.row is not None:
        said["row"] = error.row
    return Reply(error.status, msgspec.json.encode(said))


class WayIn(NamedTuple):
    """Where a request goes.

    Attributes:
        path: decoded. parts: of it, by name.
        errors: puts a refusal into words.
        open: it needs no token.
        refuses: the handler does not look at the body; the request is answered with an error.
    """

    handler: Handler
    path: str
    parts: Mapping[str, str]
    errors: Errors = told
    open: bool = False
    refuses: bool = False

    @classmethod
    def refusing(cls, error: RefusedError, path: str = "", errors: Errors = told) -> WayIn:
        """The way of a request that is refused."""

        async def refuse(exchange: Exchange) -> Reply:
            raise error

        return cls(refuse, path, {}, errors, refuses=True)


class MethodRefusedError(RefusedError):
    """The path is there, for other methods."""

    def __init__(self, method: str, path: str, allowed: Iterable[str]) -> None:
        self.allow = ", ".join(sorted(allowed))
        said = f"{method} {path!r:.80}: not allowed; this path takes {self.allow}"
        super().__init__(405, said, reason="method")


@dataclass
class _Segment:
    """A place in the tree of patterns; `named` stands for any segment."""

    children: dict[str, _Segment] = field(default_factory=dict)
    named: tuple[str, _Segment] | None = None
    ways: dict[str, tuple[Route, Errors]] = field(default_factory=dict)


class Router:
    """Which Route a request takes. HEAD goes where GET does; OPTIONS says what a path takes."""

    def __init__(self, routes: Iterable[tuple[Route, Errors]]) -> None:
        self._root = _Segment()
        self._patterns: list[str] = []
        self._ways: dict[tuple[str, bytes], WayIn] = {}
        for route, errors in routes:
            at = self._root
            for segment in route.pattern.strip("/").split("/"):
                if segment.startswith("{"):
                    if at.named is None:
                        at.named = segment[1:-1], _Segment()
                    if at.named[0] != segment[1:-1]:
                        raise ValueError(f"{route.pattern}: it is {{{at.named[0]}}} elsewhere")
                    at = at.named[1]
                else:
                    at = at.children.setdefault(segment, _Segment())
            if route.method in at.ways:
                raise ValueError(f"two routes take {route.method} {route.pattern}")
            at.ways[route.method] = route, errors
            self._patterns.append(f"{route.method} {route.pattern}")

    def way(self, method: str, path: bytes) -> WayIn:
        """Raises RefusedError: 404, 405, and 400 for a path that is no UTF-8."""
        way = self._ways.get((method, path))
        if way is None:
            way = self._found(method, path)
            if len(self._ways) >= _REMEMBERED:
                self._ways.clear()
            self._ways[method, path] = way
        return way

    def _found(self, method: str, path: bytes) -> WayIn:
        try:
            segments = [unquote(s, errors="strict") for s in path.decode("ascii").split("/")]
        except UnicodeDecodeError:
            raise RefusedError(400, "the path is not UTF-8, percent-encoded") from None
        whole = "/".join(segments)
        reached = _reached(self._root, segments[1:]) if segments[0] == "" else None
        if reached is None:
            known = "; ".join(sorted(self._patterns))
            raise RefusedError(
                404, f"nothing is at {whole!r:.80}; there is: {known}", reason="path"
            )
        ways, parts = reached
        if method == "OPTIONS":
            return WayIn(_saying(ways), whole, parts, open=True)
        found = ways.get(method) or (ways.get("GET") if method == "HEAD" else None)
        if found is None:
            raise MethodRefusedError(method, whole, _methods(ways))
        route, errors = found
        return WayIn(route.handler, whole, parts, errors, route.open)


def _reached(
    at: _Segment, segments: Sequence[str]
) -> tuple[Mapping[str, tuple[Route, Errors]], Mapping[str, str]] | None:
    """The ways at the end of these segments, and those that are named, in their order.

    A segment is what a pattern spells out, before it is a name; where that leads nowhere, a name.
    """
    if not segments:
        return (at.ways, {}) if at.ways else None
    first, rest = segments[0], segments[1:]
    child = at.children.get(first)
    reached = None if child is None else _reached(child, rest)
    if reached is None and at.named is not None and first:
        name, child = at.named
        reached = _reached(child, rest)
        return None if reached is None else (reached[0], {name: first, **reached[1]})
    return reached


def _methods(ways: Iterable[str]) -> set[str]:
    known = {"OPTIONS", *ways}
    return known | {"HEAD"} if "GET" in known else known


def _saying(ways: Iterable[str]) -> Handler:
    """What answers OPTIONS."""
    allow = ", ".join(sorted(_methods(ways))).encode("ascii")

    async def say(exchange: Exchange) -> Reply:
        return Reply(204, b"", headers=[(b"allow", allow)])

    return say
