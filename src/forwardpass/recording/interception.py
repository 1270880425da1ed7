"""Interception: what all our dispatch modes have in common."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,  # pyright: ignore[reportPrivateUsage]
)

from forwardpass.recording.doorway import out_of_dynamo
from forwardpass.recording.schemas import Schema, flattened, schema_of
from forwardpass.tensors.classes import inside


class Interception(TorchDispatchMode):
    """Sees each operator of a pass: `intercepted` is called in its place, and runs it.

    A composite that no formula explains is opened: the operators that it is made of are seen
    instead. So is what the class of a tensor calls that stands for others. Marks for profilers are
    no operators, and pass through.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not to be wrapped for torch.compile: the wrapper costs more than noting a call."""
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if types and _stands_for_others(args, kwargs):
            return NotImplemented  # then their class runs, and what it calls is seen
        schema = schema_of(func)
        if schema.opens:
            with self:
                result = func.decompose(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        elif schema.marks:
            return func(*args, **(kwargs or {}))
        return self.intercepted(func, schema, args, kwargs or {})

    def intercepted(
        self, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run `func`, an operator that the pass calls, and return what it returns."""
        raise NotImplementedError


out_of_dynamo(Interception.__torch_dispatch__.__code__)


@contextmanager
def aside() -> Generator[None]:
    """What is done here is no part of the pass: no mode, transform or class of tensors sees it."""
    with (
        _disable_current_modes(),
        temporarily_clear_interpreter_stack(),
        torch._C.DisableTorchFunctionSubclass(),  # pyright: ignore[reportPrivateUsage]
    ):
        yield


def _stands_for_others(args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> bool:
    found: list[torch.Tensor] = []
    flattened((args, kwargs or {}), found)
    return any(map(inside, found))
