"""The doorway: who stands at a method of a class, each for the calls of one thread.

The method is replaced once, when the first visitor comes, and put back when the last has left; in
between a call goes through the visitors of its own thread, the latest first, and every other thread
passes by. So visitors may leave in any order and from any thread. Replacing the method of the class
keeps PyTorch's fused paths on, which hooks on modules do not.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import get_ident
from types import FrameType
from typing import Any

import torch
from torch import nn

Calling = Callable[[FrameType, Any, tuple[Any, ...], dict[str, Any]], Any]
"""A call of the method: the frame that makes it, the object, its arguments."""
Around = Callable[[Calling], Calling]
"""What a visitor makes of the call beneath: one that takes its place."""

_LOCK = threading.RLock()  # a generator that is collected may leave while another visitor enters


@dataclass(frozen=True, eq=False)
class _Visitor:
    thread: int
    around: Around


class Doorway:
    """The doorway at one method of a class."""

    def __init__(self, owner: type, name: str) -> None:
        self._owner, self._name = owner, name
        self._visitors: list[_Visitor] = []
        self._calls: dict[int, Calling] = {}
        self._beneath: Callable[..., Any] | None = None
        self._inherited = False
        self._door: Callable[..., Any] | None = None

    @contextmanager
    def visited(self, around: Around) -> Generator[None]:
        """In this block the calls that this thread makes go through `around`."""
        visitor = _Visitor(get_ident(), around)
        with _LOCK:
            self._visitors.append(visitor)
            self._settle(visitor.thread)
        try:
            yield
        finally:
            with _LOCK:
                self._visitors.remove(visitor)
                self._settle(visitor.thread)

    def _settle(self, thread: int) -> None:
        """Make the doorway what the visitors there are ask for."""
        arounds = [visitor.around for visitor in self._visitors if visitor.thread == thread]
        if self._beneath is None and self._visitors:
            self._open()
        if not arounds:
            self._calls.pop(thread, None)
        elif self._beneath is not None:
            call = _plainly(self._beneath)
            for around in arounds:
                call = around(call)
            self._calls[thread] = call
        if self._beneath is not None and not self._visitors:
            self._close()

    def _open(self) -> None:
        self._inherited = self._name not in vars(self._owner)
        self._beneath = getattr(self._owner, self._name)
        self._calls = {}  # a door of before, that somebody may still hold, has no visitors
        self._door = _door(self._beneath, self._calls)
        setattr(self._owner, self._name, self._door)

    def _close(self) -> None:
        # Who has replaced our door by another one reaches what is beneath through it.
        if vars(self._owner).get(self._name) is self._door:
            if self._inherited:
                delattr(self._owner, self._name)
            else:
                setattr(self._owner, self._name, self._beneath)
        self._beneath = self._door = None


def _door(beneath: Any, calls: dict[int, Calling]) -> Callable[..., Any]:
    found, thread, frame = calls.get, get_ident, sys._getframe  # pyright: ignore[reportPrivateUsage]

    def door(self: Any, *args: Any, **kwargs: Any) -> Any:
        call = found(thread())
        if call is None:
            return beneath(self, *args, **kwargs)
        return call(frame(1), self, args, kwargs)

    return door


def _plainly(beneath: Callable[..., Any]) -> Calling:
    def call(caller: FrameType, self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return beneath(self, *args, **kwargs)

    return call


MODULE_CALLS = Doorway(nn.Module, "__call__")
HOST_CALLS = {f"Tensor.{name}": Doorway(torch.Tensor, name) for name in ("numpy", "tolist")}
"""The ways by which a tensor leaves for Python that are no operators, by their name in a Record."""
