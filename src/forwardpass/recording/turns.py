"""Turns: passes that we make are made one at a time, and nobody waits for who waits for them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.thread import _WorkItem  # pyright: ignore[reportPrivateUsage]
from threading import RLock, Thread, current_thread, get_ident
from types import FrameType
from typing import Any

from forwardpass.errors import UsageError

_LOOK_SECONDS = 0.2
"""How long a thread waits for its turn before it looks whether it is waited for."""


class Turns:
    """A lock that a thread may enter again. Entering raises UsageError where the thread that is in
    it waits for the one that would enter: neither could ever go on.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._inside: list[int] = []

    def __enter__(self) -> None:
        while not self._lock.acquire(timeout=_LOOK_SECONDS):
            self._refuse_if_waited_for()
        self._inside.append(get_ident())

    def __exit__(self, *_: object) -> None:
        self._inside.pop()
        self._lock.release()

    def _refuse_if_waited_for(self) -> None:
        frame = sys._current_frames().get(next(iter(self._inside), 0))  # pyright: ignore[reportPrivateUsage]
        ours = [current_thread(), *_futures(sys._getframe())]  # pyright: ignore[reportPrivateUsage]
        for waiting in _outwards(frame):
            if waiting.f_code in _WAITS and any(_own(waiting) is one for one in ours):
                raise UsageError(
                    f"thread {current_thread().name} would record while another thread records a "
                    "pass, and that waits for this one: neither could go on; record in the thread "
                    "that makes the pass, or when it is done"
                )


_WAITS = (Thread.join.__code__, Future.result.__code__, Future.exception.__code__)


def _futures(frame: FrameType) -> Iterator[Future[Any]]:
    """What a frame of a pool's thread computes."""
    for outer in _outwards(frame):
        if outer.f_code is _WorkItem.run.__code__:
            yield _own(outer).future


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _own(frame: FrameType) -> Any:
    """The `self` of a method's frame."""
    return frame.f_locals.get("self")
