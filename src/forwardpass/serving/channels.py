"""Channel: messages with arrays, between the HTTP process and an engine process.

What is sent is written once, into memory that both map: the message, and behind it the arrays,
which become views at the other end. Over the socket goes where it lies, 16 bytes. The memory may be
used again once the receiver releases it.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import prod
from mmap import mmap
from typing import Any, Final, Generic, TypeVar

import msgspec
import numpy as np

from forwardpass.errors import ForwardpassError
from forwardpass.serving.arenas import GRAIN, Arena
from forwardpass.serving.ends import Ends
from forwardpass.serving.messages import FromEngine, ToEngine
from forwardpass.tensors.blocks import Numbers

_FRAME: Final = struct.Struct("<QQ")
"""Where a piece of memory begins, and how many bytes it has."""
_HEAD: Final = struct.Struct("<QQ")
"""Of a piece: that it is in use, and the bytes of its message."""
_MESSAGES_AT_ONCE: Final = 256
_DTYPES: Final = {np.dtype(code).str: np.dtype(code) for code in "?bBhHiIlLqQefdFD"}

Message = TypeVar("Message")
Array = np.ndarray[Any, Any]
Described = list[tuple[str, list[tuple[str, tuple[int, ...]]]]]
"""Of each path the arrays that follow, by dtype and shape: one where all rows are alike."""


class ChannelClosedError(ForwardpassError):
    """The other end is gone, or sent what cannot be read."""


class ChannelFullError(ForwardpassError):
    """A message does not fit now; `never`: nor later, since it is larger than the memory."""

    def __init__(self, said: str, *, never: bool) -> None:
        super().__init__(said)
        self.never = never


class Received(Generic[Message]):
    """A message that came.

    Attributes:
        arrays: by path, views of the shared memory: one array where all rows are alike, else the
            list of rows.
    """

    __slots__ = ("_arena", "_start", "arrays", "message")

    def __init__(
        self, message: Message, arrays: Mapping[str, Numbers], arena: Arena, start: int
    ) -> None:
        self.message, self.arrays = message, arrays
        self._arena, self._start = arena, start

    def release(self) -> None:
        """The memory may be used again: whoever looks at the arrays later may see others. Again
        does nothing."""
        if self._start >= 0:
            self._arena.free(self._start)
            self._start = -1


class Channel(Generic[Message]):
    """One end, at which Messages come in: `Channel[ToEngine]`, or `Channel[FromEngine]`. Any thread
    may send; one at a time receives.

    Args:
        ends: as `ends.pair` made them; they are this object's from here on.
        engine: whether it is the engine's end.
    """

    def __init__(self, ends: Ends, *, engine: bool) -> None:
        self._socket = socket.socket(fileno=ends.socket)
        self._socket.setblocking(False)
        self._memory = mmap(ends.memory, 0)
        os.close(ends.memory)
        half = len(self._memory) // 2
        low, high = Arena(self._memory, 0, half), Arena(self._memory, half, 2 * half)
        self._mine, self._others = (high, low) if engine else (low, high)
        kind: Any = ToEngine if engine else FromEngine
        self._decoder: Any = msgspec.msgpack.Decoder(tuple[kind, Described])
        self._lock = threading.Lock()
        self._unread = b""
        self._ended: str | None = None
        self._incoming = select.poll()
        self._incoming.register(self._socket, select.POLLIN)

    def fileno(self) -> int:
        """What an event loop watches; -1 once it is closed here."""
        return self._socket.fileno()

    @property
    def bytes(self) -> int:
        """The most that a message can have, with its arrays."""
        return self._mine.bytes

    def send(
        self,
        message: ToEngine | FromEngine,
        arrays: Mapping[str, Sequence[Array]] | None = None,
    ) -> None:
        """Send a message; of each path the pieces, rows first, are written one after the other.

        Raises ChannelClosedError where nobody is at the other end, ChannelFullError where it does
        not fit now, and before anything is sent, for what cannot be: TypeError for arrays of other
        things than numbers, OverflowError for a whole number beyond 64 bits, UnicodeEncodeError for
        half of a surrogate pair.
        """
        given = arrays or {}
        described: Described = [(path, _described(pieces)) for path, pieces in given.items()]
        said = msgspec.msgpack.encode((message, described))
        begin = _HEAD.size + len(said)
        starts, size = _laid(described, begin)
        with self._lock:
            if self._ended:
                raise ChannelClosedError(self._ended)
            piece = self._mine.take(size)
        if piece is None:
            raise ChannelFullError(
                f"a message of {size:,} bytes does not fit into the {self.bytes:,} that are shared",
                never=size > self.bytes,
            )
        memory, at = self._memory, piece.start
        _HEAD.pack_into(memory, at, 1, len(said))
        memory[at + _HEAD.size : at + begin] = said
        places = iter(starts)
        for (_, parts), pieces in zip(described, given.values(), strict=True):
            for place, (dtype, shape) in enumerate(parts):
                target = np.ndarray(shape, _DTYPES[dtype], memory, at + next(places))
                if len(parts) == 1 < len(pieces):
                    np.concatenate(pieces, out=target)
                else:
                    np.copyto(target, pieces[place])
        self._announce(piece.start, size)

    def _announce(self, start: int, size: int) -> None:
        """Say where a message lies. As few bytes go whole or not at all, from any thread."""
        try:
            self._socket.send(_FRAME.pack(start, size))
        except BlockingIOError as error:
            self._mine.free(start)
            raise ChannelFullError("the other end does not read", never=False) from error
        except OSError as error:
            self._ended = self._ended or f"nobody is at the other end ({error.strerror})"
            raise ChannelClosedError(self._ended) from error

    def receive(self, timeout: float | None = 0) -> list[Received[Message]]:
        """What is there; nothing where nothing came within `timeout` seconds (None: for ever).

        Raises ChannelClosedError where the other end is closed, and all was received before that,
        and for what cannot be read: the other end sees an end then, too.
        """
        frames = self._frames()
        if not frames and not self._ended and timeout != 0:
            self._incoming.poll(None if timeout is None else timeout * 1000)
            frames = self._frames()
        if self._ended and not frames:
            raise ChannelClosedError(self._ended)
        try:
            return [self._read(start, size) for start, size in frames]
        except (ValueError, TypeError, KeyError, RecursionError, msgspec.MsgspecError) as error:
            self._end(f"the other end sent what cannot be read ({type(error).__name__})")
            raise ChannelClosedError(self._ended or "") from error

    def close(self) -> None:
        """Let go of this end, which the other one sees. Views that are in use stay valid."""
        self._end("it was closed here")
        self._socket.close()

    def _end(self, why: str) -> None:
        """Nothing is sent or received any more. The descriptor stays, which a loop may watch."""
        with self._lock:
            self._ended = why
        with suppress(OSError):  # of an end whose other is gone
            self._socket.shutdown(socket.SHUT_RDWR)  # who waits in `receive` wakes

    def _frames(self) -> list[tuple[int, int]]:
        """Where the messages lie that were announced; not more than leave others their turn."""
        frames: list[tuple[int, int]] = []
        while len(frames) < _MESSAGES_AT_ONCE and not self._ended:
            try:
                came = self._socket.recv(_FRAME.size)
            except BlockingIOError:
                break
            except OSError as error:
                came, why = b"", f"nobody is at the other end ({error.strerror})"
            else:
                why = "the other end is closed"
            if not came:
                self._ended = self._ended or why
                break
            self._unread += came  # of a stream it may be a part
            if len(self._unread) >= _FRAME.size:
                frames.append(_FRAME.unpack_from(self._unread))
                self._unread = self._unread[_FRAME.size :]
        return frames

    def _read(self, start: int, size: int) -> Received[Message]:
        if not self._others.holds(start, start + size) or size < _HEAD.size:
            raise ValueError("no piece of memory")
        memory = self._memory
        _, length = _HEAD.unpack_from(memory, start)
        begin = _HEAD.size + length
        if begin > size:
            raise ValueError("a message that is longer than its piece")
        message, described = self._decoder.decode(memory[start + _HEAD.size : start + begin])
        starts, needed = _laid(described, begin)
        if needed > size:
            raise ValueError("arrays that are larger than their piece")
        places = iter(starts)
        arrays: dict[str, Numbers] = {}
        for path, parts in described:
            found = [
                np.ndarray(shape, _DTYPES[dtype], memory, start + next(places))
                for dtype, shape in parts
            ]
            arrays[path] = found[0] if len(found) == 1 else [row for part in found for row in part]
        return Received(message, arrays, self._others, start)


def carries(value: Array) -> bool:
    """Whether a Channel takes it: rows of numbers, of a dtype that both ends know."""
    return value.ndim > 0 and value.dtype.str in _DTYPES


def _described(pieces: Sequence[Array]) -> list[tuple[str, tuple[int, ...]]]:
    """The dtype and shape of each piece; of all together, where their rows are alike."""
    for piece in pieces:
        if not carries(piece):
            what = f"{piece.dtype.str} {list(piece.shape)}"
            raise TypeError(f"an array of {what} has no rows of numbers")
    parts = [(piece.dtype.str, piece.shape) for piece in pieces]
    if len(parts) > 1 and len({(dtype, shape[1:]) for dtype, shape in parts}) == 1:
        dtype, shape = parts[0]
        return [(dtype, (sum(len(piece) for piece in pieces), *shape[1:]))]
    return parts


def _laid(described: Described, end: int) -> tuple[list[int], int]:
    """Where in a piece each array begins, if the first may from `end` on; and where the last ends.

    Raises KeyError for an unknown dtype, ValueError for a size below 0."""
    starts: list[int] = []
    for _, parts in described:
        for dtype, shape in parts:
            if min(shape, default=0) < 0:
                raise ValueError("an array of less than nothing")
            starts.append(-(-end // GRAIN) * GRAIN)
            end = starts[-1] + prod(shape) * _DTYPES[dtype].itemsize
    return starts, end
