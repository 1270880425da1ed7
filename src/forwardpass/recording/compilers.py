"""Dynamo, which compiles what it is given frame by frame: how it and our recorders keep apart."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from importlib.abc import MetaPathFinder
from threading import get_ident
from types import CodeType, ModuleType
from typing import Any

import torch
from torch._C._dynamo import eval_frame

_NAME = "torch._dynamo"


class NeedsCompiler(BaseException):
    """Raised where a pass is about to load Dynamo; no error of the pass, which catches none."""


class _Watchman(MetaPathFinder):
    """Raises NeedsCompiler where its thread would load Dynamo."""

    def __init__(self) -> None:
        self._thread = get_ident()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        if fullname == _NAME and get_ident() == self._thread:
            raise NeedsCompiler


@contextmanager
def without_compiler() -> Generator[None]:
    """In this block Dynamo is not loaded, which takes a second; NeedsCompiler is raised instead.

    What it looks up of PyTorch when it is loaded it keeps: it may not find our methods there.
    """
    if _NAME in sys.modules:
        yield
        return
    watchman = _Watchman()
    sys.meta_path.insert(0, watchman)
    try:
        yield
    finally:
        sys.meta_path.remove(watchman)


def load_compiler() -> None:
    """Load Dynamo; not while a pass runs."""
    import_module(_NAME)


def uncompiled() -> AbstractContextManager[Any]:
    """In this block what is compiled runs as it is written: its operators could not be seen."""
    return torch.compiler.set_stance("force_eager") if _NAME in sys.modules else nullcontext()


def out_of_dynamo(code: CodeType) -> None:
    """Let the frames of code of ours, and all beneath, run as they are where something is compiled:
    Dynamo would go on with them, and they are no part of what it is to compile."""
    skip = eval_frame._FrameAction.SKIP  # pyright: ignore[reportPrivateUsage]
    strategy = eval_frame._FrameExecStrategy(skip, skip)  # pyright: ignore[reportPrivateUsage]
    eval_frame.set_code_exec_strategy(code, strategy)
