"""Whose line is this: the user's, a library's, PyTorch's, Python's or ours."""

from __future__ import annotations

import os
import sysconfig
from types import FrameType

import numpy as np
import torch

from forwardpass.code.frames import shortened
from forwardpass.nouns.calls import Site

_TORCH = os.path.dirname(torch.__file__) + os.sep
_NUMPY = os.path.dirname(np.__file__) + os.sep
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
_PYTHON = sysconfig.get_path("stdlib") + os.sep
_PACKAGES = tuple({sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib")})


def place(frame: FrameType | None) -> Site | None:
    """The innermost line that is neither PyTorch's, NumPy's nor Python's; None before the model is
    reached."""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_OURS):
            return None
        if is_users(file):
            return Site(shortened(file), frame.f_lineno, frame.f_code.co_qualname)
        frame = frame.f_back
    return None


def is_users(file: str) -> bool:
    """Whether a file is the model's own, or of a library that it uses: neither PyTorch's, NumPy's,
    Python's nor ours."""
    if file.startswith((_TORCH, _NUMPY, _OURS, "<frozen", "<string")):
        return False
    return not file.startswith(_PYTHON) or file.startswith(_PACKAGES)
