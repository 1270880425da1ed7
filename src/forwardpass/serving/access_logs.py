"""AccessLog: a line of JSON for each request, written by a thread: no request waits for it."""

from __future__ import annotations

import os
import queue
import select
import threading
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from forwardpass.measuring.clocks import WALL

_MOST_LINES: Final = 65_536
_LINES_AT_ONCE: Final = 64
"""The event loop has its turn between writes: it is not held up for longer."""


class Access(NamedTuple):
    """What is known of a request that was answered."""

    arrived: float
    id: str
    client: str
    method: str
    path: str
    status: int
    body_bytes: int
    reply_bytes: int
    seconds: float


class AccessLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line.

    Attributes:
        seconds: from the first byte of the request to the reply.
        dropped: lines that are missing before this one: nobody read as fast as they came.
    """

    time: datetime
    id: str
    client: str
    method: str
    path: str
    status: int
    body_bytes: int
    reply_bytes: int
    seconds: float
    dropped: int = 0


class AccessLog:
    """Lines for a descriptor, which may be a pipe that nobody reads: then they are dropped, and
    counted."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: list[Access] = []
        self._written: queue.SimpleQueue[list[Access] | None] = queue.SimpleQueue()
        self._behind = 0
        self._lock = threading.Lock()
        self._dropped = 0
        self._encoder = msgspec.json.Encoder()
        self._thread = threading.Thread(target=self._write, name="access log", daemon=True)
        self._thread.start()

    def add(self, line: Access) -> None:
        """Keep it for the next `flush`."""
        if self._behind + len(self._lines) < _MOST_LINES:
            self._lines.append(line)
        else:
            with self._lock:
                self._dropped += 1

    def flush(self) -> None:
        """Have what there is written; it returns at once."""
        if self._lines:
            with self._lock:
                self._behind += len(self._lines)
            self._written.put(self._lines)
            self._lines = []

    def close(self, seconds: float = 1.0) -> None:
        """Write what there is, and wait for it no longer than that."""
        self.flush()
        self._written.put(None)
        self._thread.join(seconds)

    def _write(self) -> None:
        while (lines := self._written.get()) is not None:
            for at in range(0, len(lines), _LINES_AT_ONCE):
                some = lines[at : at + _LINES_AT_ONCE]
                with self._lock:
                    dropped, self._dropped = self._dropped, 0
                try:
                    self._put(self._told(some, dropped))
                except BrokenPipeError:
                    return  # whoever read them has gone: there is nobody to tell
                except OSError:  # a disk may be full for a while: the next line counts these
                    dropped += len(some)
                else:
                    dropped = 0
                with self._lock:
                    self._behind -= len(some)
                    self._dropped += dropped

    def _put(self, text: bytes) -> None:
        while text:
            try:
                text = text[os.write(self._descriptor, text) :]
            except BlockingIOError:  # another process that has it, too, may have made it so
                select.select((), (self._descriptor,), ())

    def _told(self, lines: list[Access], dropped: int) -> bytes:
        now, date = WALL.now(), datetime.now(UTC)  # an instant of WALL, and the date that it was
        return self._encoder.encode_lines([
            AccessLine(
                date - timedelta(seconds=now - line.arrived), *line[1:8], round(line.seconds, 6),
                dropped if place == 0 else 0,
            )
            for place, line in enumerate(lines)
        ])  # fmt: skip
