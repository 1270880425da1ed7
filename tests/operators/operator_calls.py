"""Real calls of real operators: what a dispatch mode sees, bound to the names of the schema."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from forwardpass import operators

MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "enable_grad": torch.enable_grad,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


class Call(NamedTuple):
    """One call of an operator: its arguments as they were before, its outputs after."""

    operator: str
    arguments: dict[str, Any]
    outputs: tuple[Any, ...]


class Shape(NamedTuple):
    """All that the recorder hands to `macs` in place of a tensor."""

    shape: tuple[int, ...]
    dtype: str = "f32"


class NestedShape:
    """The same of a nested tensor, which has no shape."""

    def __init__(self, nested_shapes: tuple[tuple[int, ...], ...]) -> None:
        self.nested_shapes = nested_shapes


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        bound = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()}
        names = [a.name for a in func._schema.arguments]
        bound |= dict(zip(names, args, strict=False)) | (kwargs or {})
        bound = {name: mapped(value, torch.Tensor.clone) for name, value in bound.items()}
        made = func(*args, **(kwargs or {}))
        outputs = tuple(made) if isinstance(made, tuple | list) else (made,)
        outputs = tuple(mapped(value, torch.Tensor.clone) for value in outputs)
        self.calls.append(Call(str(func).rpartition(".")[0], bound, outputs))
        return made


def mapped(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(mapped(each, change) for each in value)
    return value


def shape_only(tensor: torch.Tensor) -> Shape | NestedShape:
    if tensor.is_nested:
        return NestedShape(tuple(tuple(sample.shape) for sample in tensor.unbind()))
    return Shape(tuple(tensor.shape))


def calls_of(function: Callable[..., Any], *inputs: Any, mode: str = "no_grad") -> list[Call]:
    with MODES[mode](), Recorder() as recorder:
        function(*inputs)
    return recorder.calls


def macs_of(call: Call) -> int:
    """By shapes alone, as the recorder asks for it."""
    file = operators.find(call.operator)
    assert file is not None
    arguments = {name: mapped(value, shape_only) for name, value in call.arguments.items()}
    outputs = tuple(mapped(value, shape_only) for value in call.outputs)
    macs = file.macs(call.operator, arguments, outputs)
    if len(outputs) == 1:  # the recorder may hand over what the operator returned, unwrapped
        assert file.macs(call.operator, arguments, outputs[0]) == macs
    return macs


def total_macs(calls: list[Call]) -> int:
    return sum(macs_of(call) for call in calls if operators.find(call.operator))


def some_elements(tensor: torch.Tensor, count: int = 4) -> Iterator[tuple[int, ...]]:
    """The first, the last, and random ones in between."""
    if tensor.numel() == 0:
        return
    draw = random.Random(tensor.numel())
    yield tuple(0 for _ in tensor.shape)
    yield tuple(size - 1 for size in tensor.shape)
    for _ in range(count - 2):
        yield tuple(draw.randrange(size) for size in tensor.shape)


def assert_explained(call: Call, *, outputs: tuple[int, ...] = (0,), count: int = 4) -> None:
    """The arithmetic gives what the operator gave: to 1e-9 of its scale, in float32 to 1e-4."""
    file = operators.find(call.operator)
    assert file is not None
    for output in outputs:
        tensor = call.outputs[output]
        if tensor.is_nested:
            numbers = [
                ((n, *element), sample[element])
                for n, sample in enumerate(tensor.unbind())
                for element in some_elements(sample, count)
            ]
            scale = max(float(sample.abs().max()) for sample in tensor.unbind())
        else:
            numbers = [(element, tensor[element]) for element in some_elements(tensor, count)]
            finite = tensor[tensor.isfinite()] if tensor.is_floating_point() else tensor
            scale = float(finite.abs().max()) if finite.numel() else 1.0
        wide = tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16)
        tolerance = (1e-9 if wide else 1e-4) * max(scale, 1.0)
        for element, number in numbers:
            steps = file.terms(call.operator, call.arguments, output, element)
            value, expected = steps[-1].value, float(number)
            same = math.isclose(value, expected, rel_tol=0, abs_tol=tolerance)
            both_nan = math.isnan(value) and math.isnan(expected)
            where = f"{call.operator} output {output} at {element}"
            assert same or both_nan or value == expected, f"{where}: {value} is not {expected}"
            assert all(isinstance(step.value, float) for step in steps), where


def explained_calls(
    function: Callable[..., Any], *inputs: Any, mode: str, outputs: tuple[int, ...] = (0,)
) -> list[str]:
    """Checks every covered call of the pass; the names of those that were explained.

    A call that needs what was drawn at random says so with LookupError, which is no failure.
    """
    explained: list[str] = []
    for call in calls_of(function, *inputs, mode=mode):
        if operators.find(call.operator) is None:
            continue
        assert macs_of(call) >= 0
        try:
            assert_explained(call, outputs=outputs)
        except LookupError as error:
            if type(error) is not LookupError:  # an IndexError or a KeyError is a mistake
                raise
            continue
        explained.append(call.operator)
    return explained
