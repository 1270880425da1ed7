"""Gated recurrent units: one step of one layer, with the state h before it.

    r = σ(W_r x + b_r + U_r h + b′_r)        z = σ(W_z x + b_z + U_z h + b′_z)
    n = tanh(W_n x + b_n + r · (U_n h + b′_n))
    h′ = (1 − z) · n + z · h

Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, with r inside
the second product, as the PyTorch documentation of `nn.GRU` writes it.
"""

from __future__ import annotations

from math import tanh
from typing import TYPE_CHECKING, Any

from forwardpass.nouns.explanations import Equation
from forwardpass.operators import _recurrence as recurrence
from forwardpass.operators._recurrence import Moment, State, Weights
from forwardpass.operators._sums import Arguments, Element, numbers, only_first
from forwardpass.operators.activation import sigmoid

if TYPE_CHECKING:
    from torch import Tensor

FUSED_CELL = "aten._thnn_fused_gru_cell"
COVERS = ("aten.gru", "aten.gru_cell", FUSED_CELL)
FORMULA = "h′ = (1 − z) · n + z · h"


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    """Tokens × the elements of every matrix of every layer and direction."""
    return recurrence.macs(operator, arguments)


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`r`, `z`, `n`, `h` of the element's step."""
    if operator == FUSED_CELL:
        only_first(operator, output)
        of_x, of_h = recurrence.fused_parts(arguments, element[0])
        h = recurrence.wide(arguments["hx"][element[0]])
        return _lines(numbers(of_x), numbers(of_h), numbers(h), element[1])
    if operator == "aten.gru_cell":
        return steps(recurrence.cell_moment(arguments, element))
    return steps(recurrence.moment(operator, arguments, output, element, cell))


def cell(weights: Weights, x: Tensor, state: State) -> State:
    """The state after the step, of all units at once."""
    (h,) = state
    of_x, of_h = weights.parts(x, h)
    x_r, x_z, x_n = of_x.chunk(3)
    h_r, h_z, h_n = of_h.chunk(3)
    r, z = (1 / (1 + (-gate).exp()) for gate in (x_r + h_r, x_z + h_z))
    n = 2 / (1 + (-2 * (x_n + r * h_n)).exp()) - 1  # tanh
    return ((1 - z) * n + z * h,)


def steps(moment: Moment) -> list[Equation]:
    weights, x, (h,), unit = moment
    of_x, of_h = weights.parts(x, h)
    return _lines(numbers(of_x), numbers(of_h), numbers(h), unit)


def _lines(of_x: list[float], of_h: list[float], h: list[float], unit: int) -> list[Equation]:
    size = len(h)
    a, b, c = unit, size + unit, 2 * size + unit
    r, z = sigmoid(of_x[a] + of_h[a]), sigmoid(of_x[b] + of_h[b])
    n = tanh(of_x[c] + r * of_h[c])
    return [
        Equation("r", f"σ(W[{a}] · x + b[{a}] + U[{a}] · h + b′[{a}])", r),
        Equation("z", f"σ(W[{b}] · x + b[{b}] + U[{b}] · h + b′[{b}])", z),
        Equation("n", f"tanh(W[{c}] · x + b[{c}] + r · (U[{c}] · h + b′[{c}]))", n),
        Equation("h", f"(1 − z) · n + z · {h[unit]:g}", (1 - z) * n + z * h[unit]),
    ]
