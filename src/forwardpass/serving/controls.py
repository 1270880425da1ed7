"""What the supervisor and each process of its say to each other, over a connection of their own.

    supervisor → HTTP process      StartServing [listening socket], then in any order
                                   EngineJoined [Channel's socket, memory], EngineLost, Drain
    HTTP process → supervisor      Listening once or ProcessFailed, ModelAnswers, KillEngine,
                                   EditionOver; it ends when it has drained
    supervisor → template          LoadModel, then MakeEngine [control, life]
    template → supervisor          ModelLoaded or ProcessFailed; EngineForked, EngineReaped
    engine → supervisor            Learning …, then EngineReady or ProcessFailed
    supervisor → engine            EngineJoined [Channel's socket, memory], when it is ready, and
                                   again when the HTTP process is a new one

What is in brackets are descriptors that come along. A process that reads the end of its connection
ends; the supervisor that reads it knows that the process did.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from contextlib import suppress
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

from forwardpass import errors
from forwardpass.serving.options import ServedModel, ServeOptions

_READ: Final = 1 << 16
_MOST_DESCRIPTORS: Final = 16
_UNHEARD_SECONDS: Final = 10
"""That `send` waits while the other process reads nothing and the system takes no more for it. A
process reads as soon as its imports are done, and what is said is short, so that hundreds of
messages are taken before: who has left all these unread is stopped, and would stop others."""


class StartServing(msgspec.Struct, frozen=True, tag=True):
    """Serve on the socket that comes along: it is bound and listens."""

    options: ServeOptions


class Post(msgspec.Struct, frozen=True):
    """Where an engine works; if it ends, the next one comes to the same post.

    Attributes:
        edition: of the model, from 0: it is one more each time that another one was found there.
        place: among those that compute at a time.
    """

    model: str
    edition: int = 0
    place: int = 0


class EngineJoined(msgspec.Struct, frozen=True, tag=True):
    """A new Channel between the HTTP process and an engine that is ready: an end of it comes along.

    What was the Channel of this post before is dead. Of the engine's side, `About` comes first.

    Attributes:
        engine: its number, of those that this post has had.
        batch_seconds: that its dearest batch takes. It says nothing before it is done with what it
            was given over the Channel before.
    """

    post: Post
    engine: int
    batch_seconds: float = 0.0


class EngineLost(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """An engine ended, as the end of its Channel told, or will tell.

    Attributes:
        final: no other is coming: it died again and again before it was ready. Why, is for the log
            of the supervisor alone: it may name files of this machine.
    """

    post: Post
    engine: int
    final: bool


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Answer what was received whole, for so many seconds at most; refuse the rest; then end."""

    seconds: float


class Listening(msgspec.Struct, frozen=True, tag=True):
    """Connections are taken from now on; those of gRPC at this port."""

    grpc_port: int | None = None


class ModelAnswers(msgspec.Struct, frozen=True, tag=True):
    """What an engine says about this model has come: rows are answered by this edition of it from
    now on, or as before by a later one."""

    model: str
    edition: int = 0


class KillEngine(msgspec.Struct, frozen=True, tag=True):
    """This engine hangs: end it; another one is to join."""

    post: Post
    engine: int
    why: str


class EditionOver(msgspec.Struct, frozen=True, tag=True):
    """A later edition of this model answers, and this one has answered all that it was asked: its
    engines may end."""

    model: str
    edition: int


class LoadModel(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Load this model, and compute nothing.

    Attributes:
        folder: of this model, private to this server: what one engine learns is there for the next.
        lock: a file, the same for all models of this server: who is timed holds a lock on it.
        path: `sys.path`, where modules are found.
        engines: that compute at a time, and share the cores.
    """

    model: ServedModel
    folder: str
    lock: str
    path: list[str]
    engines: int = 1


class MakeEngine(msgspec.Struct, frozen=True, tag=True):
    """Become two processes, one of them an engine; or, without `fork`, become one."""

    fork: bool


class ModelLoaded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The model is there.

    Attributes:
        said: what was loaded, in a line.
        forks: whether a fork of this process can compute. why: it cannot, or "".
    """

    said: str
    forks: bool
    why: str


class EngineForked(msgspec.Struct, frozen=True, tag=True):
    """The engine that was asked for is this process."""

    pid: int


class EngineReaped(msgspec.Struct, frozen=True, tag=True):
    """That process ended, with what `os.waitpid` says."""

    pid: int
    status: int


class Learning(msgspec.Struct, frozen=True, tag=True):
    """What an engine is at before it is ready, in a few words."""

    doing: str


class EngineReady(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """It has learned what it must, and computed the sizes that will come once.

    Attributes:
        said: lines about it: from what it learned, whether batches are padded, their ceiling.
        example: a row that it answers, as JSON; "" where there is none.
        row_seconds: that the cheapest row takes alone.
        batch_seconds: that the dearest batch takes.
        fits: how many such engines the cores of this process hold.
    """

    said: tuple[str, ...]
    example: str
    row_seconds: float = 0.0
    batch_seconds: float = 0.0
    fits: int = 1


class ProcessFailed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """It cannot be what it was asked to be, and ends.

    Attributes:
        kind: name of the class of the error, of those in `forwardpass.errors`. why: its message.
    """

    kind: str
    why: str

    @classmethod
    def of(cls, error: BaseException) -> ProcessFailed:
        """Of what was raised."""
        if isinstance(error, errors.Escaped):
            return cls(kind="LoadError", why=f"user code ended the process: {error}")
        if not isinstance(error, errors.ForwardpassError):
            return cls(kind="ForwardpassError", why=f"what nobody expected: {errors.said(error)}")
        known = next(kind for kind in type(error).__mro__ if hasattr(errors, kind.__name__))
        return cls(kind=known.__name__, why=str(error))

    def error(self) -> errors.ForwardpassError:
        """The same error, in another process."""
        return getattr(errors, self.kind)(self.why)


ToHttp: TypeAlias = StartServing | EngineJoined | EngineLost | Drain
FromHttp: TypeAlias = Listening | ModelAnswers | KillEngine | EditionOver | ProcessFailed
ToTemplate: TypeAlias = LoadModel | MakeEngine
FromTemplate: TypeAlias = ModelLoaded | EngineForked | EngineReaped | ProcessFailed
ToEngineProcess: TypeAlias = EngineJoined
FromEngineProcess: TypeAlias = Learning | EngineReady | ProcessFailed
Theirs = TypeVar("Theirs")


class ControlClosedError(Exception):
    """The other process has ended, or closed its end."""


class Heard(NamedTuple, Generic[Theirs]):
    """A message, and the descriptors that came with it: whoever has read it owns these."""

    message: Theirs
    descriptors: list[int]


class Control(Generic[Theirs]):
    """One end of a connection of two processes.

    Args:
        end: its descriptor, a connected stream socket; it is owned from here on.
        theirs: the type of what the other side says, a union of the above.
    """

    def __init__(self, end: int, theirs: Any) -> None:
        self._socket = socket.socket(fileno=end)
        self._socket.setblocking(True)
        patience = struct.pack("ll", _UNHEARD_SECONDS, 0)  # of the system; what is read may wait
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(theirs)
        self._lock = threading.Lock()
        self._rest = b""
        self._descriptors: list[int] = []

    def fileno(self) -> int:
        """For a selector or an event loop: `receive` does not block when this can be read."""
        return self._socket.fileno()

    def send(self, message: msgspec.Struct, *descriptors: int) -> None:
        """Say it, with copies of these descriptors. Any thread may.

        Raises ControlClosedError where nobody is there to read it, or who is there does not: then
        the connection ends, for both.
        """
        line = b"%d %s\n" % (len(descriptors), msgspec.json.encode(message))
        try:
            with self._lock:
                sent = socket.send_fds(self._socket, [line], descriptors) if descriptors else 0
                self._socket.sendall(line[sent:])
        except OSError as error:
            if isinstance(error, BlockingIOError):  # a part of the message may be there
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
            raise ControlClosedError from error

    def receive(self) -> list[Heard[Theirs]]:
        """Read once, and wait for that; all messages that are whole. It may be none.

        Raises ControlClosedError at the end, and for what nobody says: who does is not to be heard
        any more.
        """
        try:
            read, descriptors, _, _ = socket.recv_fds(self._socket, _READ, _MOST_DESCRIPTORS)
        except OSError as error:
            raise ControlClosedError from error
        self._descriptors += descriptors
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        if not read:
            raise ControlClosedError
        *lines, self._rest = (self._rest + read).split(b"\n")
        try:
            return [self._heard(line) for line in lines]
        except ValueError as error:  # msgspec's, too
            raise ControlClosedError from error

    def _heard(self, line: bytes) -> Heard[Theirs]:
        count, _, text = line.partition(b" ")
        taken, self._descriptors = (
            self._descriptors[: int(count)],
            self._descriptors[int(count) :],
        )
        return Heard(self._decoder.decode(text), taken)

    def close(self) -> None:
        """Close this end: the other one reads the end."""
        self._socket.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []


def connected() -> tuple[int, int]:
    """Descriptors of both ends of a new connection."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return one.detach(), other.detach()
