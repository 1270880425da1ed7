"""Explanation: where one number of a pass comes from, down to the arithmetic."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Final

import msgspec

from forwardpass.nouns.documents import Document

_CLOSE: Final = {"f64": 1e-9, "f32": 1e-3, "f16": 1e-2, "bf16": 8e-2}
"""Share of the numbers' scale up to which a difference is rounding, by dtype. Half precision rounds
on the way to the operands, too."""


class Term(msgspec.Struct, frozen=True):
    """One summand, or one candidate of a maximum.

    Attributes:
        label: what it is, with its indexes: `W[7, 3] · x[0, 3]`.
        value: what it adds.
        factors: the numbers that were multiplied, in the order of the label; empty where it is
            none.
    """

    label: str
    value: float
    factors: tuple[float, ...] = ()


class Equation(msgspec.Struct, frozen=True):
    """One line of arithmetic: a name for the number, the formula, the number.

    Attributes:
        name: what the line computes: `sum`, `mean`, `i` (a gate), `y`.
        formula: how, in the letters of the operator's docstring: `Σ W[7, j] · x[0, j]`.
        value: the result, in float64.
        terms: every summand of a sum (or candidate of a maximum), in their order; empty where the
            line is no sum.
    """

    name: str
    formula: str
    value: float
    terms: tuple[Term, ...] = ()


def is_rounding(real: float, value: float, steps: Iterable[Equation], dtype: str) -> bool:
    """Whether rounding explains how far `real`, in `dtype`, is from what the steps give."""
    terms = [abs(term.value) for step in steps for term in step.terms]
    gap, scale = abs(real - value), max([abs(value), *terms])
    return isfinite(gap) and gap <= _CLOSE.get(dtype, 1e-1) * scale


class Part(msgspec.Struct, frozen=True):
    """One call of an explanation: the arithmetic of one of its elements.

    Attributes:
        call: index in the record. operator, name, place: as the record has them.
        element: the full index of the element in what this call made.
        steps: the arithmetic; empty where there is no breakdown, and `lacking` says why.
        inputs: the operands, where there is no breakdown: what they are, with their ranges.
        value: what the arithmetic gives, in float64; None without a breakdown.
        recorded: what the pass computed, in `dtype`.
    """

    call: int
    operator: str
    name: str
    module: str
    place: str
    element: tuple[int, ...]
    steps: tuple[Equation, ...]
    lacking: str
    inputs: tuple[str, ...]
    value: float | None
    recorded: float
    dtype: str = "f32"

    @property
    def difference(self) -> float | None:
        """What the pass computed minus what the arithmetic gives."""
        return None if self.value is None else self.recorded - self.value


class Gradient(msgspec.Struct, frozen=True):
    """The way back to one element of a weight or an input.

    Attributes:
        of: what is differentiated by, with its index: `fc1.weight[7, 3]`.
        loss: what is differentiated, in words; `loss_value` is its value.
        steps: ∂loss/∂w = Σ δ · x for each call that reads it; empty where there is no breakdown.
        value: what the steps give; None without.
        autograd: what autograd gives; `dtype` is the coarsest that its way back went through.
    """

    of: str
    loss: str
    loss_value: float
    steps: tuple[Equation, ...]
    value: float | None
    autograd: float
    dtype: str = "f32"

    @property
    def difference(self) -> float | None:
        """What autograd gives minus what the arithmetic gives."""
        return None if self.value is None else self.autograd - self.value


class Explanation(
    Document, frozen=True, kw_only=True, tag_field="schema", tag="forwardpass/explanation/1"
):
    """Where one number comes from.

    Attributes:
        forward: the text of the Forward.
        element: what was asked for.
        parts: the call that made it, and the activation that follows where one does.
        gradient: the way back, where it was asked for.
    """

    forward: str
    element: str
    parts: tuple[Part, ...]
    gradient: Gradient | None = None
