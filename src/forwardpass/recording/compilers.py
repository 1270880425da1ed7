"""Dynamo, which compiles what it is given frame by frame: how it and our recorders keep apart."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import torch
from torch._C._dynamo.eval_frame import get_eval_frame_callback
from torch.utils._python_dispatch import _disable_current_modes  # pyright: ignore[reportPrivateUsage]

from forwardpass.recording.doorway import doors_closed

_NAME = "torch._dynamo"


@contextmanager
def uncompiled() -> Generator[None]:
    """In this block what is compiled runs as it is written: its operators could not be seen.

    Dynamo is not loaded for that, which takes a second. Where the pass does, nobody stands at a
    door meanwhile, for Dynamo keeps what it finds of PyTorch then; and from there on it is told.
    """
    with ExitStack() as stack:

        def told() -> None:
            if get_eval_frame_callback() in (None, False):  # else a compiled one calls this
                stack.enter_context(torch.compiler.set_stance("force_eager"))

        if _NAME in sys.modules:
            told()
        else:
            watchman = _Watchman(told)
            sys.meta_path.insert(0, watchman)
            stack.callback(sys.meta_path.remove, watchman)
        yield


class _Watchman(MetaPathFinder):
    """Has Dynamo loaded alone, and calls `then`."""

    def __init__(self, then: Callable[[], None]) -> None:
        self._then = then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == _NAME else None
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def alone(module: ModuleType) -> None:
                del loader.exec_module
                with doors_closed(), _disable_current_modes():
                    execute(module)
                self._then()

            loader.exec_module = alone
        return spec
