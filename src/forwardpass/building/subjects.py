"""A module, computed on batches of an example at several sizes: what must stay so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from forwardpass.building.replicas import Arguments, Example, Inputs
from forwardpass.keeping.states import State
from forwardpass.loading.programs import ModuleProgram
from forwardpass.nouns.signatures import Axis, Signature
from forwardpass.tensors.arrays import Array
from forwardpass.tensors.dtypes import tensors
from forwardpass.tensors.generators import generators_kept
from forwardpass.tensors.trees import flatten, nest

_CANDIDATES = 8
"""Rows of an example that are tried, of which those that the module takes are used."""


def arguments_of(
    module: nn.Module, signature: Signature | None, inputs: Inputs
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a module is called with for a batch."""
    if isinstance(inputs, Arguments):
        return inputs.args, inputs.kwargs
    assert signature is not None
    placed = ModuleProgram(module).placed([item.path for item in signature.inputs])
    named = tensors(inputs, signature)
    return nest({placed[path]: value for path, value in named.items()})


def outputs_of(
    module: nn.Module, signature: Signature | None, inputs: Inputs
) -> dict[str, torch.Tensor]:
    """What a module gives for a batch, tensors by path. What it draws is the same each time, and
    what the pass changes of it is put back."""
    args, kwargs = arguments_of(module, signature, inputs)
    before = State(module)
    with generators_kept(), torch.inference_mode():
        torch.default_generator.manual_seed(0)
        try:
            return flatten(module(*args, **kwargs))
        finally:
            before.restore()


class Truth(NamedTuple):
    """A batch, and what the module makes of it."""

    said: str
    inputs: Inputs
    outputs: Mapping[str, torch.Tensor]


class Subject:
    """A module, computed on the rows of an example at sizes of our choice.

    Attributes:
        written: rows and sizes of which no two are equal.
        others: rows and sizes to try what was made of these.
    """

    def __init__(self, module: nn.Module, example: Example) -> None:
        assert example.at is not None
        assert example.signature is not None
        assert not isinstance(example.inputs, Arguments)
        self.module, self.signature, self._at = module, example.signature, example.at
        own = _own(self.signature, example.inputs)
        self.written, *self.others = _batches(self.signature, own)
        self._rows = [n for n in range(_CANDIDATES) if self._takes([n], own)] or [0]

    def batch(self, rows: int, sizes: Mapping[str, int]) -> Mapping[str, Array]:
        """Rows that the module takes, at these sizes."""
        return self._at([self._rows[n % len(self._rows)] for n in range(rows)], sizes)

    def outputs(self, batch: Mapping[str, Array]) -> dict[str, torch.Tensor]:
        """What the module gives, tensors by path."""
        return outputs_of(self.module, self.signature, batch)

    def truths(self) -> list[Truth]:
        """Batches of other sizes than `written`, those of them that the module takes."""
        found: list[Truth] = []
        for rows, sizes in self.others:
            if self._takes(range(rows), sizes):
                batch = self.batch(rows, sizes)
                found.append(Truth(spoken(rows, sizes), batch, self.outputs(batch)))
        return found

    def _takes(self, rows: Sequence[int], sizes: Mapping[str, int]) -> bool:
        try:
            self.outputs(self._at(rows, sizes))
        except Exception:  # noqa: BLE001 - a row or a size that the module takes is looked for
            return False
        return True


def is_resizable(example: Example) -> bool:
    """Whether batches of other sizes can be had."""
    return (
        example.signature is not None
        and example.at is not None
        and not isinstance(example.inputs, Arguments)
    )


def truths_of(module: nn.Module, example: Example) -> list[Truth]:
    """What the module makes of the example, and of batches of other sizes where there are any."""
    own = outputs_of(module, example.signature, example.inputs)
    others = Subject(module, example).truths() if is_resizable(example) else []
    return [Truth("the example", example.inputs, own), *others]


def _own(signature: Signature, inputs: Mapping[str, Array]) -> dict[str, int]:
    """The sizes of the variable axes in a batch."""
    return {
        axis.name: int(size)
        for item in signature.given
        if item.path in inputs
        for axis, size in zip(item.axes, inputs[item.path].shape, strict=True)
        if axis.is_variable
    }


def _batches(signature: Signature, own: Mapping[str, int]) -> list[tuple[int, dict[str, int]]]:
    """Rows and sizes: first those to write from, of which no two are equal, then those to try."""
    taken = {axis.size for item in signature.inputs for axis in item.axes if axis.size}
    rows = next(n for n in (3, 5, 7, 11, 13) if n not in taken)
    taken.add(rows)

    def near(scale: float) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, axis in signature.variable.items():
            found[name] = _near(axis, max(1, round(own.get(name, 1) * scale)), taken)
            taken.add(found[name])
        return found

    written, longer, shorter = near(1), near(1.6), near(0.7)
    tried = [(1, written), (2, longer), (rows + 3, shorter), (1, longer)]
    return [
        (rows, written),
        *(pair for place, pair in enumerate(tried) if pair not in tried[:place]),
    ]


def _near(axis: Axis, size: int, taken: set[int]) -> int:
    """A size that the axis permits, near this one; none of those taken where that can be."""
    step = axis.multiple
    top = math.inf if axis.high is None else axis.high // step * step
    base = int(min(axis.rounded(size), top))
    near = [base + step * k for distance in range(16) for k in (distance, -distance)]
    permitted = [n for n in near if axis.rounded(1) <= n <= top]
    return next((n for n in permitted if n not in taken), permitted[0])


def spoken(rows: int, sizes: Mapping[str, int]) -> str:
    count = "1 row" if rows == 1 else f"{rows} rows"
    return " × ".join([count, *(f"{name}={size}" for name, size in sizes.items())])
