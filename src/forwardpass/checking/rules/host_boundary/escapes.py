"""Escapes: what forward does outside of PyTorch, seen while it runs: Python's and NumPy's random
numbers, and printing."""

from __future__ import annotations

import ast
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType, FunctionType, TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn

from forwardpass.code.owners import models_line
from forwardpass.code.sources import parsed, shortened
from forwardpass.measuring.clocks import WALL
from forwardpass.nouns.calls import Site
from forwardpass.tensors.generators import GeneratorStates
from forwardpass.tensors.modules import parts_of

_READS = frozenset(("item", "tolist", "numpy"))


@dataclass
class Escape:
    """One way out at one line: `print`, `random.random`, `np.random.rand`; how often, how long."""

    name: str
    kind: str
    site: Site | None
    count: int = 0
    seconds: float = 0.0


class Escapes:
    """Used as a context around a pass; `found` by kind, name and site.

    Calls of built-in functions are seen by `sys.setprofile`, on this thread only, so that no name
    under which the code knows them is missed; NumPy's functions, which give no such sign, are
    wrapped in their module. Kinds are `random`, `numpy` (random numbers), `print`, and `read`
    (`.item()`, `.tolist()`, `.numpy()` of a tensor, for their time). `drawn` holds the names of
    those generators that stand elsewhere afterwards; for one that a module holds, with a line that
    uses it.
    """

    def __init__(self, module: nn.Module) -> None:
        self.found: dict[tuple[str, str, Site | None], Escape] = {}
        self.drawn: list[tuple[str, Site | None]] = []
        self._module = module
        self._open: list[tuple[Any, Escape, float]] = []
        self._drawing: FrameType | None = None
        self._before: Any = None
        self._numpy: dict[str, Any] = {}
        self._kept: dict[str, tuple[str, Site | None]] = {}

    def __enter__(self) -> Escapes:
        self._kept = dict(self._generators())
        self._states = GeneratorStates.now()
        for name in dir(np.random):
            function = getattr(np.random, name)
            if name == "default_rng" or type(getattr(function, "__self__", 0)) is _LEGACY:
                self._numpy[name] = function
                setattr(np.random, name, self._wrapped(name, function))
        self._before = sys.getprofile()
        sys.setprofile(self._seen)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        sys.setprofile(self._before)
        for name, function in self._numpy.items():
            setattr(np.random, name, function)
        now = GeneratorStates.now()
        if now.python != self._states.python:
            self.drawn.append(("random", None))
        if str(now.numpy) != str(self._states.numpy):
            self.drawn.append(("np.random", None))
        for path, (state, site) in self._generators():
            if path in self._kept and self._kept[path][0] != state:
                self.drawn.append((path, site))

    def _generators(self) -> Iterator[tuple[str, tuple[str, Site | None]]]:
        """The NumPy generators that modules hold, by path: the state as text, where it is used."""
        for path, part in parts_of(self._module):
            for name, held in vars(part).items():
                if isinstance(held, np.random.Generator):
                    site = _used(type(part), name)
                    yield f"{path}.{name}".strip("."), (str(held.bit_generator.state), site)

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            escape = self._at("numpy", f"np.random.{name}", sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
            began = WALL.now()
            try:
                return function(*args, **kwargs)
            finally:
                escape.seconds += WALL.now() - began

        return call

    def _seen(self, frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            what = self._what(function)
            if what is not None:
                escape = self._at(*what, frame)
                self._open.append((function, escape, WALL.now()))
        elif self._open and event in ("c_return", "c_exception"):
            opened, escape, began = self._open[-1]
            if opened is function or opened == function:
                self._open.pop()
                escape.seconds += WALL.now() - began

    def _what(self, function: Any) -> tuple[str, str] | None:
        """Kind and name of a built-in function, None where it leads nowhere."""
        if function is print:
            return "print", "print"
        owner = getattr(function, "__self__", None)
        if isinstance(owner, random.Random):
            return "random", f"random.{function.__name__}"
        if owner is not None and function.__name__ == "write" and owner in (sys.stdout, sys.stderr):
            return "print", "write"
        if function.__name__ in _READS and isinstance(owner, torch.Tensor):
            return "read", f".{function.__name__}"
        return None

    def _at(self, kind: str, name: str, frame: FrameType | None) -> Escape:
        within = _drawn_within(frame) if kind == "random" else None
        if within is not None:
            name = f"random.{within.f_code.co_name}"
        site = models_line(frame)
        escape = self.found.setdefault((kind, name, site), Escape(name, kind, site))
        escape.count += within is None or within is not self._drawing
        self._drawing = within
        return escape


_LEGACY: Any = np.random.RandomState


def _used(kind: type, name: str) -> Site | None:
    """The first line of `forward` that reads an attribute."""
    forward = getattr(kind, "forward", None)
    read = parsed(forward) if isinstance(forward, FunctionType) else None
    if forward is None or read is None:
        return None
    tree, first = read
    reads = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    lines = [n.lineno for n in reads if ast.unparse(n) == f"self.{name}"]
    file, function = shortened(forward.__code__.co_filename), forward.__qualname__
    return Site(file, first + min(lines) - 1, function) if lines else None


def _drawn_within(frame: FrameType | None) -> FrameType | None:
    """The function of Python's `random` that the model called: `randint`, which draws by
    `getrandbits`, more than once where a number does not suit."""
    within = None
    while frame is not None and frame.f_code.co_filename == random.__file__:
        frame, within = frame.f_back, frame
    return within
