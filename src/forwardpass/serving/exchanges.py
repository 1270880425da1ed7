"""Exchange, Reply, Route: a request as the protocols see it, and what they answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from forwardpass.errors import ForwardpassError
from forwardpass.serving.options import RequestLimits


class Account(Protocol):
    """In which all connections of a server count the bodies that they hold.

    Attributes:
        arriving_bytes: of bodies that nobody counts otherwise: of requests that are not whole yet,
            wait for their turn on a connection, or are being read by a protocol.
        limits: of these, `queue_bytes` is the most that it may be.
    """

    arriving_bytes: int
    limits: RequestLimits


@dataclass(slots=True)
class Exchange:
    """One request, received whole.

    Attributes:
        method: in capitals. path: decoded, without the query. query: raw.
        parts: what the Route's pattern took from the path, by name.
        headers: names in lower case; of one that came twice, the first.
        body: as it was before it was compressed.
        id: of the request: the client's x-request-id where it is sound, else made.
        arrived: by `measuring.clocks.WALL`, when its first byte was read.
        gone: called once, if nobody waits for its answer any more; whoever answers sets it.
        left: nobody does: the client has left, or was told this `refusal` meanwhile.
        model: that was asked; "" where none was.
        dispatched: when the last of its rows went to an engine; None: not all did.
        account: in which it counts for `held` bytes; None: in none.
    """

    method: str
    path: str
    query: bytes
    parts: Mapping[str, str]
    headers: Mapping[bytes, bytes]
    body: bytes
    id: str
    arrived: float
    gone: Callable[[], None] | None = None
    left: bool = False
    refusal: RefusedError | None = None
    model: str = ""
    dispatched: float | None = None
    account: Account | None = None
    held: int = 0

    def hold(self, size: int) -> None:
        """It counts for so many bytes from now on. Raises RefusedError, 503, where all together
        are more than may be held."""
        account = self.account
        if account is None:
            return
        account.arriving_bytes += size - self.held
        self.held = size
        if account.arriving_bytes > account.limits.queue_bytes:
            said = "the requests that arrive now are more than can be held"
            raise RefusedError(503, said, reason="full", retry_after=1.0)

    def let_go(self) -> None:
        """It counts no more: it is answered, or who is to answer it counts it among what waits."""
        if self.account is not None:
            self.account.arriving_bytes -= self.held
            self.account = None


@dataclass(slots=True)
class Reply:
    """An answer; `body` may be in pieces, which are sent one after the other, or a stream of them,
    which are sent as they come."""

    status: int
    body: bytes | list[bytes | memoryview] | AsyncGenerator[bytes]
    type: bytes = b"application/json"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


Handler: TypeAlias = Callable[[Exchange], Awaitable[Reply]]


@dataclass(frozen=True)
class Route:
    """A method and a path pattern: `/models/{name}`; what is in braces is one segment, decoded.

    Attributes:
        open: it is answered without the token: a probe, or a page that holds nothing.
    """

    method: str
    pattern: str
    handler: Handler
    open: bool = False


class RefusedError(ForwardpassError):
    """A request is answered with an error.

    Attributes:
        status: of HTTP. row: the row that it is about. retry_after: seconds until it may work.
        reason: one word for metrics and logs: "late", "full", "invalid", "failed", …
        counted: whether the metrics have it, as they have those of a model.
    """

    def __init__(
        self, status: int, said: str, *, reason: str = "invalid", row: int | None = None,
        retry_after: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__(said)
        self.status, self.reason = status, reason
        self.row, self.retry_after = row, retry_after
        self.counted = False
