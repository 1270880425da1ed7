"""The doorway: who stands at a method of a class, each for the calls of one thread.

The door is opened once, when the first visitor comes, and closed when the last has left; in
between a call goes through the visitors of its own thread, the latest first, and every other
thread passes by. So visitors may leave in any order and from any thread. A door in the class keeps
PyTorch's fused paths on, which hooks on modules do not.

A method that is a function of Python's gets other code for a while, and stays the same object:
giving a class another attribute makes Python forget all that it knows of the class and of hundreds
of subclasses, and the pass that follows is slower by that.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import get_ident
from types import CodeType, FrameType, FunctionType
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from torch._C._dynamo import eval_frame
from torch._ops import HigherOrderOperator

from forwardpass.tensors.modules import own_calls

Calling = Callable[[FrameType, Any, tuple[Any, ...], dict[str, Any]], Any]
"""A call of the method: the frame that makes it, the object, its arguments."""
Around = Callable[[Calling], Calling]
"""What a visitor makes of the call beneath: one that takes its place."""

_LOCK = threading.RLock()  # a generator that is collected may leave while another visitor enters

_DOORWAYS: WeakSet[Doorway] = WeakSet()


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
        self._door: _InCode | _InClass | None = None
        _DOORWAYS.add(self)

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

    @property
    def is_visited(self) -> bool:
        """Whether anybody stands there."""
        return bool(self._visitors)

    def opened(self, is_open: bool) -> None:
        """Open or close the door, whoever stands there."""
        if self._door is not None:
            (self._door.open if is_open else self._door.close)()

    def _settle(self, thread: int) -> None:
        """Make the doorway what the visitors there are ask for."""
        arounds = [visitor.around for visitor in self._visitors if visitor.thread == thread]
        if self._door is None and self._visitors:
            self._calls = {}  # a door of before, that somebody may still hold, has no visitors
            method = vars(self._owner).get(self._name)
            if isinstance(method, staticmethod):  # as `__new__` is
                method = method.__func__
            if isinstance(method, FunctionType):
                self._door = _InCode(method, self._calls)
            else:
                self._door = _InClass(self._owner, self._name, self._calls)
        if not arounds:
            self._calls.pop(thread, None)
        elif self._door is not None:
            call = _plainly(self._door.beneath)
            for around in arounds:
                call = around(call)
            self._calls[thread] = call
        if self._door is not None and not self._visitors:
            self._door.close()
            self._door = None


class _InCode:
    """A door in the code of a function; `beneath` does what the function did."""

    def __init__(self, function: FunctionType, calls: dict[int, Calling]) -> None:
        before = function.__code__
        self.beneath = FunctionType(
            before, function.__globals__, function.__name__, function.__defaults__,
            function.__closure__,
        )  # fmt: skip
        self.beneath.__kwdefaults__ = function.__kwdefaults__  # pyright: ignore[reportAttributeAccessIssue]
        self._function, self._before = function, before
        door, consts = _through(self.beneath, calls), _gate.__code__.co_consts
        self._ours = function.__code__ = _gate.__code__.replace(
            co_consts=tuple([door if const == _DOOR else const for const in consts]),
            co_freevars=before.co_freevars,  # a function keeps its closure
        )
        out_of_dynamo(self._ours)

    def open(self) -> None:
        self._function.__code__ = self._ours

    def close(self) -> None:
        if self._function.__code__ is self._ours:
            self._function.__code__ = self._before


class _InClass:
    """A door in the place of a method that the class inherits, or that is no function."""

    def __init__(self, owner: type, name: str, calls: dict[int, Calling]) -> None:
        self.beneath: Callable[..., Any] = getattr(owner, name)
        self._owner, self._name, self._inherited = owner, name, name not in vars(owner)
        through = _through(self.beneath, calls)

        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            return through(self, args, kwargs)

        out_of_dynamo(method.__code__)
        self._ours = functools.update_wrapper(method, self.beneath, (), ())  # with its signature
        self.open()

    def open(self) -> None:
        setattr(self._owner, self._name, self._ours)

    def close(self) -> None:
        # Who has replaced our door by another one reaches what is beneath through it.
        if vars(self._owner).get(self._name) is self._ours:
            if self._inherited:
                delattr(self._owner, self._name)
            else:
                setattr(self._owner, self._name, self.beneath)


_DOOR = "door"
"""What stands for the door among the constants of `_gate`, a function without a closure."""


def _gate(self: Any, *args: Any, **kwargs: Any) -> Any:
    door: Any = "door"
    return door(self, args, kwargs)


def _through(
    beneath: Callable[..., Any], calls: dict[int, Calling]
) -> Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]:
    found, thread, frame = calls.get, get_ident, sys._getframe  # pyright: ignore[reportPrivateUsage]

    def through(self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = found(thread())
        if call is None:
            return beneath(self, *args, **kwargs)
        return call(frame(2), self, args, kwargs)

    return through


def out_of_dynamo(code: CodeType) -> None:
    """Let the frames of code of ours, and all beneath, run as they are where something is compiled:
    Dynamo would go on with them, and they are no part of what it is to compile."""
    skip = eval_frame._FrameAction.SKIP  # pyright: ignore[reportPrivateUsage]
    strategy = eval_frame._FrameExecStrategy(skip, skip)  # pyright: ignore[reportPrivateUsage]
    eval_frame.set_code_exec_strategy(code, strategy)


@contextmanager
def doors_closed() -> Generator[None]:
    """In this block all doors are closed, for all threads."""
    with _LOCK:
        for doorway in _DOORWAYS:
            doorway.opened(False)
    try:
        yield
    finally:
        with _LOCK:
            for doorway in _DOORWAYS:
                doorway.opened(True)


def _plainly(beneath: Callable[..., Any]) -> Calling:
    def call(caller: FrameType, self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return beneath(self, *args, **kwargs)

    return call


MODULE_CALLS = Doorway(nn.Module, "__call__")
CLASS_CALLS = Doorway(torch.Tensor, "as_subclass"), Doorway(nn.Parameter, "__new__")
"""The ways by which a tensor becomes an object of another class, past the dispatcher."""
HOST_CALLS = {f"Tensor.{name}": Doorway(torch.Tensor, name) for name in ("numpy", "tolist")}
"""The ways by which a tensor leaves for Python that are no operators, by their name in a Record."""
HIGHER_ORDER_CALLS = Doorway(HigherOrderOperator, "__call__")
_OWN_CALLS: dict[type, Doorway] = {}
"""The doorways at the `__call__` of classes that have one of their own, while somebody is there."""


@contextmanager
def calls_visited(kinds: Iterable[type], around: Around) -> Generator[None]:
    """In this block the calls of modules that this thread makes go through `around`: those by
    nn.Module's `__call__`, and those by a `__call__` that these classes have of their own, which
    may or may not come to that of nn.Module.
    """
    owners = {id(vars(owner)["__call__"]): owner for kind in kinds for owner in own_calls(kind)}
    with ExitStack() as stack:
        stack.enter_context(MODULE_CALLS.visited(around))
        for owner in owners.values():
            stack.enter_context(_own_door(owner, around))
        yield


@contextmanager
def _own_door(owner: type, around: Around) -> Generator[None]:
    with _LOCK:
        doorway = _OWN_CALLS.setdefault(owner, Doorway(owner, "__call__"))
        entered = doorway.visited(around)
        entered.__enter__()
    try:
        yield
    finally:
        with _LOCK:
            entered.__exit__(None, None, None)
            if not doorway.is_visited:
                _OWN_CALLS.pop(owner, None)
