"""ReplyHeads: the bytes of a reply before its body."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from forwardpass.serving.exchanges import Reply

_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii")
    for status in HTTPStatus
}


class ReplyHeads:
    """They bear the date, which is made anew once in a while."""

    def __init__(self) -> None:
        self._date = b""
        self.renew()

    def renew(self) -> None:
        """Look at the calendar."""
        self._date = formatdate(usegmt=True).encode("ascii")

    def of(self, reply: Reply, size: int | None, id: str, *, last: bool) -> bytes:
        """Status and headers of a reply, whose body has `size` bytes; `last` of its connection.

        Of a stream nobody knows the size: it comes in chunks, or ends with its connection.
        """
        more = b"".join([b"%b: %b\r\n" % header for header in reply.headers])
        if reply.status != 204:
            more += b"content-type: %b\r\n" % reply.type
            if size is not None:
                more += b"content-length: %d\r\n" % size
            elif not last:
                more += b"transfer-encoding: chunked\r\n"
        if last:
            more += b"connection: close\r\n"
        line = _LINES.get(reply.status) or b"HTTP/1.1 %d \r\n" % reply.status
        return b"%bdate: %b\r\nx-request-id: %b\r\n%b\r\n" % (
            line, self._date, id.encode("ascii"), more,
        )  # fmt: skip
