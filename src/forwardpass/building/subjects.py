"""A module, computed on batches of an example at several sizes: what must stay so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from forwardpass.building.replicas import Arguments, Example, Inputs
from forwardpass.errors import PassError, said
from forwardpass.keeping.standing import Standing
from forwardpass.keeping.states import State
from forwardpass.loading.programs import ModuleProgram
from forwardpass.nouns.signatures import Axis, Signature
from forwardpass.tensors.arrays import Array, spelled, to_numpy
from forwardpass.tensors.blocks import Block
from forwardpass.tensors.distances import tolerance
from forwardpass.tensors.dtypes import tensors
from forwardpass.tensors.generators import generators_kept
from forwardpass.tensors.modules import device_of
from forwardpass.tensors.trees import flatten, nest

_CANDIDATES: Final = 8
"""Rows of an example that are tried, of which those that the module takes are used."""
_FILLED: Final = (1.0, 0.4, 0.7)
"""How much of a padded batch its rows fill, in turn."""
_LONG: Final = 512
"""Sizes up to here are tried whatever the example's are; beyond, up to `_MORE` times its own."""
_MORE: Final = 4


def arguments_of(
    module: nn.Module, signature: Signature | None, inputs: Inputs
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a module is called with for a batch, where the module is."""
    if isinstance(inputs, Arguments):
        return inputs.args, inputs.kwargs
    assert signature is not None
    placed = ModuleProgram(module).placed([item.path for item in signature.inputs])
    device = device_of(module)
    named = tensors(inputs, signature)
    return nest({placed[path]: value.to(device) for path, value in named.items()})


def outputs_of(
    module: nn.Module, signature: Signature | None, inputs: Inputs, *, seed: int = 0
) -> dict[str, torch.Tensor]:
    """What a module gives for a batch, tensors by path, in CPU memory. What it draws is the same
    for one seed, and what the pass changes of it is put back."""
    args, kwargs = arguments_of(module, signature, inputs)
    before = State(module)
    with generators_kept(), torch.inference_mode():
        torch.default_generator.manual_seed(seed)
        try:
            return {path: value.cpu() for path, value in flatten(module(*args, **kwargs)).items()}
        finally:
            before.restore()


@dataclass(frozen=True)
class Truth:
    """A batch, and what the module makes of it.

    Attributes:
        said: its sizes.
        real: of outputs with cells that hold what lies under the padding: the others, as booleans.
    """

    said: str
    inputs: Inputs
    outputs: Mapping[str, torch.Tensor]
    real: Mapping[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])

    def cells(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """What counts of an output of this batch; it has the shape that the module's has."""
        return value[self.real[name]] if name in self.real else value


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
        taken = (n for n in range(_CANDIDATES) if self._outputs(example.at([n], own)) is not None)
        self._rows = list(taken) or [0]

    def batch(self, rows: int, sizes: Mapping[str, int]) -> Mapping[str, Array]:
        """Rows that the module takes, at these sizes."""
        return self._at([self._rows[n % len(self._rows)] for n in range(rows)], sizes)

    def outputs(self, batch: Mapping[str, Array]) -> dict[str, torch.Tensor]:
        """What leaves of what the module gives, tensors by path: what is declared, or all."""
        found = outputs_of(self.module, self.signature, batch)
        declared = [output.path for output in self.signature.outputs]
        if declared and all(path in found for path in declared):
            return {path: found[path] for path in declared}
        return found

    def draft(self) -> Mapping[str, Array]:
        """What to write from: rows of several lengths, where the signature says what of them is
        padding. A module may go another way where all of a mask is real."""
        padded = self._padded(*self.written)
        if padded and self._outputs(padded[0]) is not None:
            return padded[0]
        return self.batch(*self.written)

    def truths(self) -> list[Truth]:
        """Batches of other sizes than `written`, and a padded one, as far as the module takes
        them."""
        each = (self.truth(rows, sizes) for rows, sizes in self.others)
        found = [truth for truth in each if truth is not None]
        rows, sizes = max(self.others, key=lambda other: other[0])
        padded = self._padded(rows, sizes)
        outputs, moved = map(self._outputs, padded) if padded else (None, None)
        if padded and outputs and moved:
            real = {name: _alike(value, moved[name]) for name, value in outputs.items()}
            if any(bool(cells.any()) for cells in real.values()):
                found.append(Truth(f"{spoken(rows, sizes)}, padded", padded[0], outputs, real))
        return found

    def truth(self, rows: int, sizes: Mapping[str, int]) -> Truth | None:
        """What the module makes of a batch of these sizes; None where it does not take it."""
        batch = self.batch(rows, sizes)
        outputs = self._outputs(batch)
        return None if outputs is None else Truth(spoken(rows, sizes), batch, outputs)

    def other_rows(self) -> list[Truth]:
        """Rows beyond the first ones, at the sizes of `written`, where the module takes some."""
        rows, sizes = self.written
        following = [self._rows[(n + rows) % len(self._rows)] for n in range(rows)]
        found: list[Truth] = []
        for what, chosen in (("other rows", following), ("one row again", self._rows[-1:] * rows)):
            batch = self._at(chosen, sizes)
            outputs = self._outputs(batch)
            found += [] if outputs is None else [Truth(what, batch, outputs)]
        return found

    def kept(self) -> str:
        """What a pass changes of the module by which the next one gives something else, in a
        sentence; empty where it gives the same again."""
        args, kwargs = arguments_of(self.module, self.signature, self.batch(*self.written))
        standing = Standing(self.module)
        with generators_kept(), torch.inference_mode():
            try:
                once, again = (flatten(self.module(*args, **kwargs)) for _ in range(2))
            finally:
                standing.settle()
        return "" if _are_alike(once, again) else next(iter(standing.put_back), "")

    def draws(self) -> bool:
        """Whether the module draws numbers that move what it gives."""
        batch = self.batch(*self.written)
        one, other = (
            outputs_of(self.module, self.signature, batch, seed=seed) for seed in range(2)
        )
        return not _are_alike(one, other)

    def alone(self) -> Iterator[tuple[str, int, dict[str, int]]]:
        """Rows and sizes that differ from `written` along one axis alone, with its name."""
        rows, sizes = self.written
        yield from (("batch", count, sizes) for count in (1, rows + 1))
        for name, size in sizes.items():
            other = next((s[name] for _, s in self.others if s[name] != size), size)
            if other != size:
                yield name, rows, {**sizes, name: other}

    def _padded(
        self, rows: int, sizes: Mapping[str, int]
    ) -> tuple[Mapping[str, Array], Mapping[str, Array]] | None:
        """Rows of several lengths as a batch of these sizes; and the same with something else under
        the padding. None where the signature does not say what is padding."""
        signature = self.signature
        marked = {item.derived_from for item in signature.inputs if item.derivation}
        lengths = np.array([[sizes[name] for name in signature.variable]] * rows, np.int64)
        for place, (name, axis) in enumerate(signature.variable.items()):
            if name in marked and signature.padded(name):
                shares = [_FILLED[n % len(_FILLED)] for n in range(rows)]
                own = [axis.rounded(round(share * sizes[name])) for share in shares]
                lengths[:, place] = np.minimum(own, sizes[name])
        if not lengths.size or (lengths == lengths[0]).all():
            return None
        full = self.batch(rows, sizes)
        values: dict[str, list[np.ndarray[Any, Any]]] = {}
        for item in signature.given:
            if item.path not in full:
                continue
            whole = np.moveaxis(to_numpy(full[item.path]), item.batch_axis or 0, 0)
            for row, own in zip(whole, lengths, strict=True):
                known = dict(zip(signature.variable, map(int, own), strict=True))
                spans = (known.get(axis.name, axis.size) for axis in item.row_axes)
                kept = [slice(-n, None) if item.pad_left else slice(n) for n in spans]
                values.setdefault(item.path, []).append(row[tuple(kept)])
        block = Block(signature, dict(values), lengths, lengths)
        padded = block.collate([sizes[name] for name in signature.variable])
        return padded, {**padded, **{path: full[path] for path in values}}

    def _outputs(self, batch: Mapping[str, Array]) -> dict[str, torch.Tensor] | None:
        """What the module gives; None where it does not take the batch."""
        try:
            return self.outputs(batch)
        except Exception:  # noqa: BLE001 - a row or a size that the module takes is looked for
            return None


def _are_alike(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether all results are the same, but for rounding."""
    return one.keys() == other.keys() and all(
        value.shape == other[name].shape and bool(_alike(value, other[name]).all())
        for name, value in one.items()
    )


def _alike(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Which elements of two results are the same, but for rounding."""
    if not one.is_floating_point():
        return one == other
    far = tolerance([spelled(one)]) * one.nan_to_num(0.0, 0.0, 0.0).abs().max()
    return torch.isclose(one, other, rtol=0.0, atol=float(far), equal_nan=True)


def is_resizable(example: Example) -> bool:
    """Whether batches of other sizes can be had."""
    return (
        example.signature is not None
        and example.at is not None
        and not isinstance(example.inputs, Arguments)
    )


def truths_of(module: nn.Module, example: Example) -> list[Truth]:
    """What the module makes of the example, and of batches of other sizes where there are any.

    Raises PassError where it raises on the example.
    """
    try:
        own = outputs_of(module, example.signature, example.inputs)
    except Exception as error:
        raise PassError(f"{type(module).__name__}.forward raised {said(error)}") from error
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
    axes = signature.variable
    least = {name: axis.rounded(1) for name, axis in axes.items()}
    most = {
        name: _near(axis, max(_LONG, _MORE * own.get(name, 1)), set())
        for name, axis in axes.items()
    }
    tried = [(1, written), (2, longer), (rows + 3, shorter), (1, longer), (1, least), (1, most)]
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
