"""Watchpoint: the line of the user's code at which something became other than it was."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from forwardpass.code.lines import ThreadTrace, TraceFunction
from forwardpass.code.owners import Owner, is_of_models, models_frame, owner, site_of
from forwardpass.code.sources import line_at
from forwardpass.nouns.calls import Site


class Watchpoint(ThreadTrace):
    """While code runs within it on this thread, finds the first line after which `changed` holds.

    However the line writes (an assignment, `setattr`, a method of a list, a helper, a hook), it is
    seen by what it leaves. Lines of PyTorch, NumPy and Python count to the line that called them.

    Attributes:
        site: that line; None where nothing changed, or where no source can be read.
    """

    def __init__(self, changed: Callable[[], bool]) -> None:
        self.site: Site | None = None
        self._changed = changed

    def _entered(self, frame: FrameType, event: str, argument: Any, /) -> TraceFunction | None:
        file = frame.f_code.co_filename
        if not is_of_models(file) and owner(file) is not Owner.STRING:
            return None
        if self._is_found(models_frame(frame.f_back)):
            return None
        last = frame.f_lineno

        def step(frame: FrameType, event: str, argument: Any, /) -> TraceFunction | None:
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
            site = site_of(frame, line)
            self.site = site if line_at(site) else None
        return True
