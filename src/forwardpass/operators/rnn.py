"""Plain recurrent networks: h′ = tanh(W x + b + U h + b′), or max(0, …) in place of tanh.

`_cudnn_rnn` is every recurrent network on CUDA; its `mode` says which: 0 relu, 1 tanh, 2 LSTM,
3 GRU. Source: Elman, "Finding Structure in Time", 1990; the PyTorch documentation of `nn.RNN`.
"""

from __future__ import annotations

from math import tanh
from typing import TYPE_CHECKING, Any

from forwardpass.nouns.explanations import Equation, Term
from forwardpass.operators import _recurrence as recurrence
from forwardpass.operators import gru, lstm
from forwardpass.operators._recurrence import Moment, State, Weights
from forwardpass.operators._sums import Arguments, Element, numbers, summed, times

if TYPE_CHECKING:
    from torch import Tensor

COVERS = (
    "aten.rnn_tanh",
    "aten.rnn_relu",
    "aten.rnn_tanh_cell",
    "aten.rnn_relu_cell",
    recurrence.CUDNN,
)
FORMULA = "h′ = tanh or relu of (W x + b + U h + b′)"
_RELU, _TANH, _LSTM, _GRU = range(4)


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    """Tokens × the elements of every matrix of every layer and direction."""
    return recurrence.macs(operator, arguments)


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`sum` with every product, `h`; or the steps of the LSTM or the GRU."""
    if operator == recurrence.CUDNN:
        mode = arguments["mode"]
    else:
        mode = _RELU if "relu" in operator else _TANH
    if mode == _LSTM:
        own = recurrence.moment(operator, arguments, output, element, lstm.cell)
        return lstm.steps(own, wants_c=output == 2)
    if mode == _GRU:
        return gru.steps(recurrence.moment(operator, arguments, output, element, gru.cell))
    relu = mode == _RELU
    if operator.endswith("_cell"):
        own = recurrence.cell_moment(arguments, element)
    else:
        cell = _relu_cell if relu else _tanh_cell
        own = recurrence.moment(operator, arguments, output, element, cell)
    total = _sum(own)
    value = max(0.0, total.value) if relu else tanh(total.value)
    return [total, Equation("h", "max(0, sum)" if relu else "tanh(sum)", value)]


def _tanh_cell(weights: Weights, x: Tensor, state: State) -> State:
    of_x, of_h = weights.parts(x, state[0])
    return (2 / (1 + (-2 * (of_x + of_h)).exp()) - 1,)


def _relu_cell(weights: Weights, x: Tensor, state: State) -> State:
    of_x, of_h = weights.parts(x, state[0])
    return ((of_x + of_h).clamp(min=0),)


def _sum(moment: Moment) -> Equation:
    weights, x, (h,), unit = moment
    parts: list[Term] = []
    for matrix, letter, vector, of in ((weights.input, "W", x, "x"), (weights.hidden, "U", h, "h")):
        pairs = zip(numbers(matrix[unit]), numbers(vector), strict=True)
        parts += [
            times(f"{letter}[{unit}, {j}] · {of}[{j}]", w, v) for j, (w, v) in enumerate(pairs)
        ]
    for bias, name in ((weights.input_bias, "b"), (weights.hidden_bias, "b′")):
        if bias is not None:
            parts.append(Term(f"{name}[{unit}]", float(bias[unit])))
    return summed("sum", f"W[{unit}] · x + U[{unit}] · h + biases", parts)
