"""Whose line is this: the user's, a library's, PyTorch's, NumPy's, Python's or ours."""

from __future__ import annotations

import os
import sysconfig
from enum import Enum, auto
from functools import cache
from types import FrameType, TracebackType

import numpy as np
import torch

from forwardpass.code.sources import file_of, shortened
from forwardpass.nouns.calls import Site


class Owner(Enum):
    """Who wrote a file.

    A library is what was installed beside PyTorch and NumPy; modules of ours that stand in a user's
    model, a cast or a pooling, count as one. What Python makes of a string has no file to show: the
    methods of a dataclass, and a program given by `python -c`.
    """

    OURS = auto()
    LAYERS = auto()  # of PyTorch
    TORCH = auto()
    NUMPY = auto()
    PYTHON = auto()
    STRING = auto()
    LIBRARY = auto()
    USER = auto()


def _folder(file: str | None, *parts: str) -> str:
    assert file is not None
    return os.path.join(os.path.dirname(file), *parts, "")


_PACKAGE = _folder(os.path.dirname(__file__))
_IN_MODELS = tuple(os.path.join(_PACKAGE, *p, "") for p in (("loading",), ("building", "steps")))
_TORCH = _folder(torch.__file__)
_LAYERS = (_folder(torch.__file__, "nn", "modules"), _folder(torch.__file__, "ao"))
_NO_LAYER = os.path.join(_LAYERS[0], "module.py")  # the class that all modules derive from
_NUMPY = _folder(np.__file__)
_INSTALLED = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
_STDLIB = {os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib")}
_PYTHON = ("<frozen ", *_STDLIB)


@cache
def owner(filename: str) -> Owner:
    """Who wrote a file, by the name that its code objects have. Cells of notebooks are users'."""
    if filename.startswith(_PACKAGE):
        return Owner.LIBRARY if filename.startswith(_IN_MODELS) else Owner.OURS
    if filename.startswith(_TORCH):
        layer = filename.startswith(_LAYERS) and filename != _NO_LAYER
        return Owner.LAYERS if layer else Owner.TORCH
    if filename.startswith(_NUMPY):
        return Owner.NUMPY
    if any(folder in filename for folder in _INSTALLED):
        return Owner.LIBRARY
    if filename.startswith(_PYTHON):
        return Owner.PYTHON
    return Owner.STRING if filename.startswith("<string") else Owner.USER


def is_of_models(filename: str) -> bool:
    """Whether a file is the model's own, or of a library that it uses."""
    return owner(filename) in (Owner.USER, Owner.LIBRARY)


def is_installed(site: Site) -> bool:
    """Whether a line stands in what was installed, or comes with Python, and is not the user's."""
    return owner(file_of(site.file, site.line)) not in (Owner.USER, Owner.STRING)


def past_ours(frame: FrameType | None) -> FrameType | None:
    """The innermost frame that is not ours."""
    while frame is not None and owner(frame.f_code.co_filename) is Owner.OURS:
        frame = frame.f_back
    return frame


def models_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of the model's own code, or of a library that it uses; None where one of
    ours comes first: it is not within the model."""
    while frame is not None and not is_of_models(frame.f_code.co_filename):
        frame = None if owner(frame.f_code.co_filename) is Owner.OURS else frame.f_back
    return frame


def models_line(frame: FrameType | None) -> Site | None:
    """The line that runs in `models_frame`."""
    found = models_frame(frame)
    return None if found is None else site_of(found)


def raised_at(trace: TracebackType | None) -> Site | None:
    """The innermost line of a traceback that is the model's own, or of a library that it uses."""
    found: Site | None = None
    while trace is not None:
        if is_of_models(trace.tb_frame.f_code.co_filename):
            found = site_of(trace.tb_frame, trace.tb_lineno)
        trace = trace.tb_next
    return found


def site_of(frame: FrameType, line: int | None = None) -> Site:
    """The line that runs in a frame, or another one of it."""
    code = frame.f_code
    return Site(shortened(code.co_filename), line or frame.f_lineno, code.co_qualname)
