"""Numbers of the data that Python reads in a pass: a trace holds what the model then did alone."""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np
import torch
from torch.jit._trace import is_tracing
from torch.overrides import TorchFunctionMode

from forwardpass.code.owners import models_line

_READERS: Final = {
    "__bool__", "__int__", "__float__", "__complex__", "__index__", "__contains__", "__array__",
    "item", "tolist", "numpy", "equal", "allclose", "is_nonzero",
}  # fmt: skip
_SIZES: Final = {"aten::size", "aten::dim", "aten::numel", "aten::len", "prim::GetAttr"}
"""What gives no numbers of the data; attributes are the module's own."""


class ValueReads(TorchFunctionMode):
    """Notes which values Python reads in a pass, by the line of the model that reads them.

    Attributes:
        found: the values as text, in their order, by line.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[str]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reads = getattr(func, "__name__", "") in _READERS and any(map(self.counts, args))
        made = func(*args, **(kwargs or {}))
        if reads:
            site = models_line(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
            said = repr(made.tolist() if isinstance(made, np.ndarray) else made)
            self.found.setdefault(str(site or "a line of a library"), []).append(said)
        return made

    def counts(self, value: Any) -> bool:
        """Whether reading from this is noted."""
        return isinstance(value, torch.Tensor)


class TracedReads(ValueReads):
    """The same of a pass that is traced, and of numbers of its inputs alone: sizes, too, are
    tensors there."""

    def counts(self, value: Any) -> bool:
        return super().counts(value) and is_tracing() and _is_of_inputs(value)


def _is_of_inputs(value: torch.Tensor) -> bool:
    heads: list[Any] = [torch._C._get_value_trace(value)]  # pyright: ignore
    seen: set[Any] = set()
    while heads:
        head = heads.pop()
        node = head.node()
        if node.kind() == "prim::Param":
            if head.type().kind() == "TensorType":
                return True
        elif node.kind() not in _SIZES and node not in seen:
            seen.add(node)
            heads += node.inputs()
    return False
