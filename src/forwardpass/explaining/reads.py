"""Reads: which numbers an arithmetic read, and where they stand.

The arithmetic is done once more, with a code in the place of each number: what comes out as one of
the codes was read, and all else was computed. So no formula says what it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, prod
from typing import Final, NamedTuple

import torch

from forwardpass import operators
from forwardpass.explaining.verb import Explained
from forwardpass.explaining.views import Element
from forwardpass.nouns.explanations import Equation, Term
from forwardpass.recording.costs import bound
from forwardpass.recording.recordings import Recording

_MASK: Final = (1 << 52) - 1
_MIX: Final = 0x9E3779B97F4A7
"""Odd, so that it can be undone: neighbouring places get codes that are far from each other."""
_BACK: Final = pow(_MIX, -1, 1 << 52)
_MOST: Final = 1 << 25
"""Numbers in an operand up to which they are coded, which takes 16 bytes each."""


class ReadNumber(NamedTuple):
    """A number of an operand: the serial of the value, and the element of it."""

    serial: int
    element: Element


class Reads:
    """The numbers that the arithmetic of one element read.

    Where that cannot be told, such as in operands that are very large, nothing was.
    """

    def __init__(self, record: Recording, one: Explained) -> None:
        self._tensors = one.came.tensors
        self._starts: list[tuple[int, int]] = []
        self._steps = self._coded(record, one) if one.part.steps else []
        same = len(self._steps) == len(one.part.steps)
        self._pairs = list(zip(one.part.steps, self._steps, strict=True)) if same else []

    def of_step(self, step: int) -> ReadNumber | None:
        """What the value of a step is, where it was read and not computed."""
        if not self._pairs:
            return None
        real, coded = self._pairs[step]
        return self._read(real.value, coded.value) if real.name == coded.name else None

    def of_term(self, step: int, term: int) -> tuple[ReadNumber | None, ...]:
        """The factors of a term of a step, or its value where it has none."""
        real, coded = self._term(step, term)
        if real is None or coded is None:
            return ()
        if not real.factors:
            return (self._read(real.value, coded.value),)
        pairs = zip(real.factors, coded.factors, strict=True)
        return tuple(self._read(value, code) for value, code in pairs)

    def _term(self, step: int, term: int) -> tuple[Term | None, Term | None]:
        if not self._pairs:
            return None, None
        real, coded = self._pairs[step]
        if len(real.terms) != len(coded.terms):
            return None, None  # a mask, say, was read as a number
        one, other = real.terms[term], coded.terms[term]
        alike = one.label == other.label and len(one.factors) == len(other.factors)
        return (one, other) if alike else (None, None)

    def _coded(self, record: Recording, one: Explained) -> Sequence[Equation]:
        """The steps once more, of codes."""
        schema = record.schema(one.call)
        formula = operators.find(schema.packet)
        assert formula is not None
        first, codes = 1, dict(self._tensors)
        for serial, tensor in self._tensors.items():
            if not tensor.is_floating_point() or tensor.layout is not torch.strided:
                continue
            if tensor.is_nested or tensor.numel() > _MOST:
                continue
            self._starts.append((first, serial))
            codes[serial] = _codes(first, tensor)
            first += tensor.numel()
        output = one.call.outputs.index(one.made.serial)
        arguments = bound(schema, one.call, codes)
        try:
            return formula.terms(schema.packet, arguments, output, one.part.element)
        except (LookupError, ArithmeticError, ValueError):
            return ()  # codes are no numbers that such a formula takes

    def _read(self, value: float, code: float) -> ReadNumber | None:
        """What was read as this code; it has to be the number that the real arithmetic read."""
        if not 0.5 <= code < 1:
            return None
        place = int((code - 0.5) * (1 << 53)) * _BACK & _MASK
        for first, serial in reversed(self._starts):
            tensor = self._tensors[serial]
            if first <= place < first + tensor.numel():
                element = _element(place - first, tensor.shape)
                real = float(tensor[element])
                return ReadNumber(serial, element) if real == value or isnan(real) else None
        return None


def _codes(first: int, tensor: torch.Tensor) -> torch.Tensor:
    """A number from ½ to 1 for each place from `first` on, strided as the tensor is."""
    places = torch.arange(first, first + tensor.numel(), device=tensor.device)
    codes = (places * _MIX & _MASK).double() * 2.0**-53 + 0.5
    return torch.empty_like(tensor, dtype=torch.float64).copy_(codes.reshape(tensor.shape))


def _element(place: int, shape: Sequence[int]) -> Element:
    behind = [prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return tuple(place // step % size for step, size in zip(behind, shape, strict=True))
