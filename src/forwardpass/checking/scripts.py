"""A script of the user's, run with the models that it calls under watch; then each is checked.

The script runs as `__main__` in this process. The passes are its own: what they compute and change
is what they compute and change without us. What is kept is bounded: passes that went the same way
share a graph, and a line that calls a model often is recorded its first times.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import torch
from torch import nn

from forwardpass.errors import UsageError
from forwardpass.nouns.calls import Site
from forwardpass.nouns.records import Record
from forwardpass.recording.passes import Pass, is_staged, standing
from forwardpass.recording.watching import Watcher
from forwardpass.tensors.trees import flatten

MOST_ROOTS = 16
"""Models that are watched; those after them run as they are."""
MOST_PASSES_A_LINE = 128
"""In each mode and grad setting; those after them run as they are."""
MOST_CALLS = 200_000
"""Calls in the graphs of one model that are kept, about 1 kB each."""


class Root:
    """A module that the script calls itself, not from within the forward of another.

    Attributes:
        records: of the passes that were recorded.
        last: by mode and grad setting, the last recorded pass, to be made again.
        learned: lines whose passes backward went through.
    """

    def __init__(self, module: nn.Module, watcher: Watcher) -> None:
        self.module = module
        self.last: dict[tuple[str, str], Pass] = {}
        self.learned: set[Site] = set()
        self._watcher = watcher
        self._times: Counter[tuple[object, ...]] = Counter()
        self._graphs: dict[int, int] = {}

    @property
    def records(self) -> list[Record]:
        return list(self._watcher.records)

    def wants(self, caller: FrameType) -> bool:
        """Whether one more pass from this line is recorded."""
        way = caller.f_code.co_filename, caller.f_lineno, self.module.training, standing()
        self._times[way] += 1
        kept = sum(self._graphs.values())
        return self._times[way] <= MOST_PASSES_A_LINE and kept < MOST_CALLS

    def pass_of(self, args: tuple[Any, ...], kwargs: dict[str, Any], caller: FrameType) -> Any:
        """Make the pass, record it, and see whether backward comes back through it."""
        this = Pass.of(self.module, args, kwargs)
        result = self._watcher.pass_of(args, kwargs, caller)
        done = self._watcher.records[-1]
        self._graphs[id(done.calls)] = len(done.calls)
        self.last[done.mode, done.grad] = this
        if done.caller is not None:
            self._see_backward(result, done.caller)
        return result

    def _see_backward(self, result: Any, site: Site) -> None:
        learned = self.learned

        def reached(gradients: Any) -> None:
            learned.add(site)

        for tensor in flatten(result).values():
            if tensor.grad_fn is not None:
                tensor.grad_fn.register_prehook(reached)


class Script:
    """A script and what it called.

    Args:
        path: the Python file.
        arguments: what it finds in `sys.argv` after its name.

    Attributes:
        roots: the models, in the order of their first calls.
        ended: what the script raised, its SystemExit included; None where it ran to its end.
    """

    def __init__(self, path: str, arguments: tuple[str, ...]) -> None:
        self.path, self.arguments = path, arguments
        self.roots: list[Root] = []
        self.ended: BaseException | None = None
        self._by_id: dict[int, Root] = {}
        self._left_out: dict[int, nn.Module] = {}
        self._busy = False
        self._thread = threading.get_ident()

    @contextmanager
    def ran(self) -> Generator[None]:
        """Run the script; within the block its modules can still be called, as they were in it.

        Raises UsageError where there is no such file. What the script raises is kept in `ended`.
        """
        file = Path(self.path)
        try:
            source = file.read_bytes()
        except OSError as error:
            raise UsageError(f"--script {self.path}: it cannot be read: {error}") from error
        main = ModuleType("__main__")
        main.__file__ = self.path
        vars(main)["__builtins__"] = __builtins__
        before = sys.argv, list(sys.path), sys.modules["__main__"]
        sys.argv = [self.path, *self.arguments]
        sys.path.insert(0, str(file.resolve().parent))
        sys.modules["__main__"] = main
        try:
            with self._watching():
                try:
                    exec(compile(source, os.path.abspath(self.path), "exec"), vars(main))
                except BaseException as error:  # noqa: BLE001 - told after what was found
                    self.ended = error
            yield
        finally:
            sys.argv, sys.path[:], sys.modules["__main__"] = before

    @contextmanager
    def _watching(self) -> Generator[None]:
        beneath = nn.Module.__call__

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self._busy or is_staged() or threading.get_ident() != self._thread:
                return beneath(module, *args, **kwargs)
            caller = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
            self._busy = True
            try:
                root = self._root(module, beneath)
                if root is None or not root.wants(caller):
                    return beneath(module, *args, **kwargs)
                return root.pass_of(args, kwargs, caller)
            finally:
                self._busy = False

        nn.Module.__call__ = call
        try:
            yield
        finally:
            nn.Module.__call__ = beneath

    def _root(self, module: nn.Module, beneath: Any) -> Root | None:
        """The root that a module is; None for what has nothing to learn, such as a loss, and for
        what cannot be recorded yet."""
        known = self._by_id.get(id(module))
        if known is not None or id(module) in self._left_out:
            return known
        parameters = list(module.parameters())
        if any(nn.parameter.is_lazy(parameter) for parameter in parameters):
            return None  # it has its shapes after its first pass
        script = isinstance(module, torch.jit.ScriptModule)
        if not parameters or script or len(self.roots) == MOST_ROOTS:
            self._left_out[id(module)] = module  # held, so that no other takes its id
            return None
        root = self._by_id[id(module)] = Root(module, Watcher(module, beneath))
        self.roots.append(root)
        return root
