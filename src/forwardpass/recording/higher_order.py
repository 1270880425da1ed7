"""Higher-order operators: they call functions that they are given, such as the branches of cond.

PyTorch compiles what calls them, traces their functions with tensors that have no numbers, and has
a gradient of their own for them. All of that goes around a recorder, or fails beneath one. But each
of them has code in Python that says what it does, by ordinary operators: while a pass of ours runs,
that code runs in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from types import FrameType, FunctionType
from typing import Any

from torch._C import DispatchKey
from torch._C._functorch import peek_interpreter_stack
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import _get_current_dispatch_mode  # pyright: ignore[reportPrivateUsage]

from forwardpass.recording.doorway import HIGHER_ORDER_CALLS, Calling
from forwardpass.recording.interception import Interception

_ASKS = _get_current_dispatch_mode.__name__


def opened() -> AbstractContextManager[None]:
    """In this block higher-order operators run by their own code, unless somebody else traces."""
    return HIGHER_ORDER_CALLS.visited(_around)


def _around(beneath: Calling) -> Calling:
    def call(
        caller: FrameType, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        mode = _get_current_dispatch_mode()
        is_traced = mode is not None and not isinstance(mode, Interception)
        kernel = None if is_traced or peek_interpreter_stack() else _dense(operator)
        if kernel is None:
            return beneath(caller, operator, args, kwargs)
        return kernel(*args, **kwargs)

    return call


@cache
def _dense(operator: HigherOrderOperator) -> Callable[..., Any] | None:
    """The code of a higher-order operator; None where there is none in Python, or it refuses.

    Some of it asserts that it runs below all dispatch modes, where nothing would be seen of it; it
    is told that there is none.
    """
    kernel = operator.py_kernels.get(DispatchKey.CompositeExplicitAutograd)
    if not isinstance(kernel, FunctionType) or _ASKS in kernel.__code__.co_varnames:
        return None
    told = {**kernel.__globals__, _ASKS: lambda: None}
    code = kernel.__code__
    twin = FunctionType(code, told, kernel.__name__, kernel.__defaults__, kernel.__closure__)
    twin.__kwdefaults__ = kernel.__kwdefaults__
    return twin
