"""A script of the user's, run with the models that it calls under watch; then each is checked.

The script runs as `__main__` in this process. The passes are its own: what they compute and change
is what they compute and change without us. What is kept is bounded: passes that went the same way
share a graph, and a line that calls a model often is recorded its first times.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import torch
from torch import nn

from forwardpass.checking.uses import CallingLine, Span
from forwardpass.errors import UsageError
from forwardpass.nouns.calls import Site
from forwardpass.nouns.records import Record
from forwardpass.recording.doorway import MODULE_CALLS, Calling
from forwardpass.recording.passes import Pass, is_staged, standing
from forwardpass.recording.watching import Watcher
from forwardpass.tensors.modules import is_training, parameters_of
from forwardpass.tensors.trees import flatten

MOST_ROOTS = 16
"""Models that are watched; those after them run as they are. An ensemble has as many."""
MOST_PASSES_A_LINE = 128
"""In each mode and grad setting; those after them run as they are. Rules tell a loop by 4 passes
and measure a batch of 64 rows."""
MOST_CALLS = 200_000
"""Calls in the graphs of one model that are kept, about 1 kB each: 200 MB in all."""
_MOST_MEASURED = 16
"""Passes from a line whose inputs are measured: another unit shows in every one of them."""


class Course:
    """How far a script is: passes made so far, and how many there were at the last backward."""

    def __init__(self) -> None:
        self.passes = 0
        self.learned = 0


class Root:
    """A module that the script calls itself, not from within the forward of another.

    Attributes:
        records: of the passes that were recorded.
        last: by mode and grad setting, the last recorded pass, to be made again.
        learned: lines whose passes backward went through.
    """

    def __init__(self, module: nn.Module, course: Course) -> None:
        self.module = module
        self.last: dict[tuple[str, str], Pass] = {}
        self.learned: set[Site] = set()
        self._watcher, self._course = Watcher(module), course
        self._times: Counter[tuple[object, ...]] = Counter()
        self._lines: dict[tuple[object, ...], CallingLine] = {}
        self._graphs: dict[int, int] = {}

    @property
    def records(self) -> list[Record]:
        return list(self._watcher.records)

    @property
    def lines(self) -> list[CallingLine]:
        """The lines that called it, in each mode and grad setting, as the script left them."""
        for line in self._lines.values():
            line.learned = line.site in self.learned
            line.idle = not line.learned and line.last > self._course.learned
        return list(self._lines.values())

    def pass_of(
        self, beneath: Calling, caller: FrameType, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Make the pass, record it if that is wanted, and see whether backward comes back
        through it."""
        way = caller.f_code.co_filename, caller.f_lineno, is_training(self.module), standing()
        self._times[way] += 1
        self._course.passes += 1
        if self._times[way] <= MOST_PASSES_A_LINE and sum(self._graphs.values()) < MOST_CALLS:
            result = self._recorded(beneath, caller, args, kwargs, way)
        else:
            result = beneath(caller, self.module, args, kwargs)
        line = self._lines.get(way)
        if line is not None:
            line.times += 1
            line.last = self._course.passes
            self._see_backward(result, line.site)
        return result

    def _recorded(
        self, beneath: Calling, caller: FrameType, args: tuple[Any, ...], kwargs: dict[str, Any],
        way: Any,
    ) -> Any:  # fmt: skip
        this = Pass.of(self.module, args, kwargs)
        result = self._watcher.pass_of(beneath, caller, args, kwargs)
        done = self._watcher.records[-1]
        self._graphs[id(done.calls)] = len(done.calls)
        self.last[done.mode, done.grad] = this
        if done.caller is not None:
            line = self._lines.setdefault(way, CallingLine(done.caller, done.mode, done.grad))
            if line.times < _MOST_MEASURED and not _is_transformed():
                for path, tensor in this.named(this.arguments, this.keywords).items():
                    line.spans.setdefault(path, Span()).see(tensor)
        return result

    def _see_backward(self, result: Any, site: Site) -> None:
        def reached(gradients: Any) -> None:
            self.learned.add(site)
            self._course.learned = self._course.passes

        for tensor in flatten(result).values():
            if tensor.grad_fn is not None:
                tensor.grad_fn.register_prehook(reached)
        if _is_transformed():
            reached(None)


def _is_transformed() -> bool:
    """Whether torch.func differentiates what runs, of which no hook tells."""
    return torch._C._functorch.maybe_current_level() is not None  # pyright: ignore


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
        self._course = Course()

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
            with MODULE_CALLS.visited(self._around):
                try:
                    exec(compile(source, os.path.abspath(self.path), "exec"), vars(main))
                except BaseException as error:  # noqa: BLE001 - told after what was found
                    self.ended = error
            yield
        finally:
            sys.argv, sys.path[:], sys.modules["__main__"] = before

    def _around(self, beneath: Calling) -> Calling:
        def call(
            caller: FrameType, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            if self._busy or is_staged():
                return beneath(caller, module, args, kwargs)
            self._busy = True
            try:
                root = self._root(module)
                if root is None:
                    return beneath(caller, module, args, kwargs)
                return root.pass_of(beneath, caller, args, kwargs)
            finally:
                self._busy = False

        return call

    def _root(self, module: nn.Module) -> Root | None:
        """The root that a module is; None for what has nothing to learn, such as a loss, and for
        what cannot be recorded yet."""
        known = self._by_id.get(id(module))
        if known is not None or id(module) in self._left_out:
            return known
        parameters = [parameter for _, parameter in parameters_of(module)]
        if any(nn.parameter.is_lazy(parameter) for parameter in parameters):
            return None  # it has its shapes after its first pass
        script = isinstance(module, torch.jit.ScriptModule)
        if not parameters or script or len(self.roots) == MOST_ROOTS:
            self._left_out[id(module)] = module  # held, so that no other takes its id
            return None
        root = self._by_id[id(module)] = Root(module, self._course)
        self.roots.append(root)
        return root
