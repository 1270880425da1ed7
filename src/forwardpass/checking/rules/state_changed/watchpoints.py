"""Watchpoint: the line of the user's code at which something became other than it was."""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any, Protocol

import torch

import forwardpass
from forwardpass.code.frames import shortened
from forwardpass.nouns.calls import Site

_TORCH, _OURS = (os.path.dirname(m.__file__ or "") + os.sep for m in (torch, forwardpass))


class _Step(Protocol):
    def __call__(self, frame: FrameType, event: str, argument: Any, /) -> _Step | None: ...


class Watchpoint:
    """While code runs within it on this thread, finds the first line after which `changed` holds.

    However the line writes (an assignment, `setattr`, a method of a list, a helper, a hook), it is
    seen by what it leaves. PyTorch's own lines count to the line that called them. A debugger or
    a coverage tool that traces this thread is off meanwhile.

    Attributes:
        site: that line; None where nothing changed, or where no source can be read.
    """

    def __init__(self, changed: Callable[[], bool]) -> None:
        self.site: Site | None = None
        self._changed = changed
        self._before: Any = None

    def __enter__(self) -> Watchpoint:
        self._before = sys.gettrace()
        sys.settrace(self._entered)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _entered(self, frame: FrameType, event: str, argument: Any, /) -> _Step | None:
        if not _is_the_users(frame.f_code.co_filename):
            return None
        if self._is_found(_caller(frame)):
            return None
        last = frame.f_lineno

        def step(frame: FrameType, event: str, argument: Any, /) -> _Step | None:
            nonlocal last
            if event == "line":  # which is about to run
                ran, last = last, frame.f_lineno
                return None if self._is_found(frame, ran) else step
            return None if event == "return" and self._is_found(frame) else step

        return step

    def _is_found(self, frame: FrameType | None, line: int | None = None) -> bool:
        """Whether something changed, which was in this frame; None: in no line of the user's."""
        if not self._changed():
            return False
        sys.settrace(None)
        if frame is not None:
            file, number = frame.f_code.co_filename, line or frame.f_lineno
            if linecache.getline(file, number):
                self.site = Site(shortened(file), number, frame.f_code.co_qualname)
        return True


def _caller(frame: FrameType) -> FrameType | None:
    """The frame of the user's code that led to this one; None where the pass begins."""
    caller = frame.f_back
    while caller is not None and not _is_the_users(caller.f_code.co_filename):
        caller = None if caller.f_code.co_filename.startswith(_OURS) else caller.f_back
    return caller


@cache
def _is_the_users(filename: str) -> bool:
    return not filename.startswith((_TORCH, _OURS, "<frozen"))
