"""torch.compile, watched: how many graphs it makes of a function, and where it breaks."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, cast

import torch

from forwardpass.code.owners import is_of_models
from forwardpass.code.sources import shortened
from forwardpass.errors import BuildError, said


class Compiled:
    """A function that PyTorch compiles when it is called; `frozen`, with weights as constants.

    It falls apart where it cannot be compiled: several graphs then, and plain Python between them.

    Attributes:
        graphs: how many were compiled so far.
        broken: the first place where it falls apart, and why; empty where it is whole.
    """

    def __init__(self, function: Callable[..., Any], dynamic: bool, frozen: bool) -> None:
        self._frozen = frozen
        self.graphs = 0
        self.broken = ""
        self._anew: list[str] = []
        self._seen: set[Any] = set()
        # What is compiled is kept with the code that called it, up to a number: by a code of its
        # own a function shares neither graphs nor that number with others of the same class.
        entry = _with_code_of_its_own(function)
        self._whole: Any = torch.compile(entry, fullgraph=True, dynamic=dynamic)
        self._parts: Any = torch.compile(entry, dynamic=dynamic)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        sizes = _sizes((args, kwargs))
        if sizes in self._seen:
            return self._parts(*args, **kwargs)
        before = _graphs()
        with _compiling(self._frozen):
            outputs = (self._parts if self._seen else self._first)(*args, **kwargs)
        made = _graphs() - before
        if not made and not self._seen:
            raise BuildError(
                f"nothing of it was compiled: {self.broken or 'there is no call in it'}"
            )
        if made and self._seen:
            self._anew.append(" × ".join(map(str, _leaves(sizes))))
        self.graphs += made
        self._seen.add(sizes)
        return outputs

    def __str__(self) -> str:
        """What became of it, in a sentence."""
        parts = ["1 graph" if self.graphs == 1 else f"{self.graphs} graphs"]
        parts.append(f"broken at {self.broken}" if self.broken else "no break")
        parts += [] if self._frozen else ["weights are no constants"]
        if self._anew:
            parts.append(f"compiled anew for inputs of {', '.join(self._anew)}")
        return ", ".join(parts)

    def _first(self, *args: Any, **kwargs: Any) -> Any:
        from torch._dynamo.exc import Unsupported

        try:
            return self._whole(*args, **kwargs)
        except Unsupported as error:
            self.broken = _where(error)
            return self._parts(*args, **kwargs)


def _with_code_of_its_own(function: Callable[..., Any]) -> Callable[..., Any]:
    def entry(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    code = entry.__code__.replace()
    return FunctionType(code, entry.__globals__, entry.__name__, None, entry.__closure__)


@contextmanager
def _compiling(frozen: bool) -> Generator[None]:
    """Within, LSTMs are compiled as one operator each; and where it is frozen, weights are taken
    for constants, which are packed for the processor."""
    from torch._dynamo import config as of_dynamo
    from torch._inductor import config as of_inductor

    with of_inductor.patch(freezing=frozen), of_dynamo.patch(allow_rnn=True):
        yield


def _graphs() -> int:
    """How many graphs PyTorch compiled in this process."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def _sizes(value: Any) -> Any:
    """The shapes of the tensors in a tree of arguments, as a tree."""
    if isinstance(value, torch.Tensor):
        return value.shape
    if isinstance(value, dict):
        return tuple(map(_sizes, cast("dict[str, Any]", value).values()))
    if isinstance(value, list | tuple):
        return tuple(map(_sizes, cast("list[Any]", value)))
    return None


def _leaves(sizes: Any) -> list[list[int]]:
    if isinstance(sizes, torch.Size):
        return [list(sizes)]
    return [leaf for part in sizes or () for leaf in _leaves(part)]


def _where(error: Any) -> str:
    """The line of the model at which it breaks, and why, as PyTorch says it."""
    stack = reversed(list(getattr(error, "real_stack", None) or ()))
    line = next((frame for frame in stack if is_of_models(frame.filename)), None)
    reason = said(error).partition(": ")[2].rstrip(".")
    return f"{shortened(line.filename)}:{line.lineno}: {reason}" if line else reason
