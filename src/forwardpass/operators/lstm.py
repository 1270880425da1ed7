"""Long short-term memory: one step of one layer, with the state (h, c) before it.

    i = σ(W_i x + U_i h + b)    f = σ(W_f x + U_f h + b)
    g = tanh(W_g x + U_g h + b) o = σ(W_o x + U_o h + b)
    c′ = f · c + i · g          h′ = o · tanh(c′)          with `proj_size`: h′ = R (o · tanh(c′))

b is the sum of both biases. The outputs are h of every step, the last h, the last c. Source:
Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997, with forget gates (Gers et al., 2000),
as the PyTorch documentation of `nn.LSTM` writes it.
"""

from __future__ import annotations

from math import tanh
from typing import TYPE_CHECKING, Any

from forwardpass.nouns.explanations import Equation
from forwardpass.operators import _recurrence as recurrence
from forwardpass.operators._recurrence import Moment, State, Weights
from forwardpass.operators._sums import Arguments, Element, numbers, summed, times
from forwardpass.operators.activation import sigmoid

if TYPE_CHECKING:
    from torch import Tensor

FUSED_CELL = "aten._thnn_fused_lstm_cell"
COVERS = ("aten.lstm", "aten.lstm_cell", recurrence.MKLDNN, FUSED_CELL)
FORMULA = "h′ = o · tanh(f · c + i · g)"


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    """Tokens × the elements of every matrix of every layer and direction."""
    return recurrence.macs(operator, arguments)


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`i`, `f`, `g`, `o`, `c`, `h` of the element's step; with a projection `h` as its sum."""
    if operator == FUSED_CELL:
        of_x, of_h = recurrence.fused_parts(arguments, element[0])
        c = recurrence.wide(arguments["cx"][element[0]])
        return _lines(numbers(of_x + of_h), numbers(c), element[1], wants_c=_wants_c(output, 1))
    if operator == "aten.lstm_cell":
        own = recurrence.cell_moment(arguments, element)
        return steps(own, wants_c=_wants_c(output, 1))
    return steps(
        recurrence.moment(operator, arguments, output, element, cell), wants_c=_wants_c(output, 2)
    )


def _wants_c(output: int, place_of_c: int) -> bool:
    if output > place_of_c:
        raise LookupError(f"output {output} of an LSTM is not explained; it is kept for autograd")
    return output == place_of_c


def cell(weights: Weights, x: Tensor, state: State) -> State:
    """The state after the step, of all units at once."""
    h, c = state
    of_x, of_h = weights.parts(x, h)
    i, f, g, o = (of_x + of_h).chunk(4)
    c = _gate(f) * c + _gate(i) * _tanh(g)
    h = _gate(o) * _tanh(c)
    return (h if weights.projection is None else weights.projection @ h), c


def _gate(z: Tensor) -> Tensor:
    return 1 / (1 + (-z).exp())


def _tanh(z: Tensor) -> Tensor:
    return 2 * _gate(2 * z) - 1


def steps(moment: Moment, *, wants_c: bool) -> list[Equation]:
    weights, x, (h, c), unit = moment
    if weights.projection is not None and not wants_c:
        return [_projected(moment, weights.projection)]
    of_x, of_h = weights.parts(x, h)
    return _lines(numbers(of_x + of_h), numbers(c), unit, wants_c=wants_c)


def _lines(z: list[float], c: list[float], unit: int, *, wants_c: bool) -> list[Equation]:
    """From what enters the gates, z, and from c before the step."""
    size = len(c)
    lines: list[Equation] = []
    for n, gate in enumerate("ifgo"):
        row = n * size + unit
        function, name = (tanh, "tanh") if gate == "g" else (sigmoid, "σ")
        lines.append(
            Equation(gate, f"{name}(W[{row}] · x + U[{row}] · h + b[{row}])", function(z[row]))
        )
    i, f, g, o = (line.value for line in lines)
    memory = Equation("c", f"f · {c[unit]:g} + i · g", f * c[unit] + i * g)
    if wants_c:
        return [*lines, memory]
    return [*lines, memory, Equation("h", "o · tanh(c)", o * tanh(memory.value))]


def _projected(moment: Moment, projection: Tensor) -> Equation:
    weights, x, state, unit = moment
    whole = numbers(cell(weights._replace(projection=None), x, state)[0])
    row = numbers(projection[unit])
    products = [
        times(f"R[{unit}, {j}] · o[{j}] tanh(c[{j}])", r, value)
        for j, (r, value) in enumerate(zip(row, whole, strict=True))
    ]
    return summed("h", f"Σ R[{unit}, j] · o[j] tanh(c[j])", products)
