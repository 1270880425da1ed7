"""What recurrent networks share: layers, directions, packed sequences, the walk up to one step.

The walk is for one sample, in float64. PyTorch keeps the matrices of the gates on top of each
other: W is [gates·hidden input], U is [gates·hidden hidden].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from math import prod
from typing import NamedTuple

import torch

from forwardpass.operators._sums import Arguments, Element

Tensor = torch.Tensor

MKLDNN = "aten.mkldnn_rnn_layer"
CUDNN = "aten._cudnn_rnn"
_CUDNN_LSTM = 2

State = tuple[Tensor, ...]  # h, and for an LSTM c


class Weights(NamedTuple):
    """Of one layer and direction; `projection` [projected hidden] is an LSTM's with `proj_size`."""

    input: Tensor
    hidden: Tensor
    input_bias: Tensor | None = None
    hidden_bias: Tensor | None = None
    projection: Tensor | None = None

    def parts(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """W·x + b and U·h + b, of all gates."""
        of_x, of_h = self.input @ x, self.hidden @ h
        if self.input_bias is not None and self.hidden_bias is not None:
            return of_x + self.input_bias, of_h + self.hidden_bias
        return of_x, of_h


class Moment(NamedTuple):
    """One step: what comes in, and the state before it."""

    weights: Weights
    x: Tensor
    state: State
    unit: int


Cell = Callable[[Weights, Tensor, State], State]


def macs(operator: str, arguments: Arguments) -> int:
    """Each matrix meets each token once; `_cudnn_rnn` and packed sequences likewise."""
    if operator.startswith("aten._thnn"):
        return 0  # their products came before
    tokens = arguments["data"] if "data" in arguments else arguments["input"]
    if operator == MKLDNN:  # the places of missing biases are filled with anything
        matrices = [arguments["weight0"], arguments["weight1"]]
    elif "w_ih" in arguments:
        matrices = [arguments["w_ih"], arguments["w_hh"]]
    else:
        listed = arguments["weight" if operator == CUDNN else "params"]
        matrices = [each for each in listed if len(each.shape) == 2]
    return prod(tokens.shape[:-1]) * sum(prod(each.shape) for each in matrices)


def wide(tensor: Tensor) -> Tensor:
    return tensor.detach().double().cpu()


class _Network:
    """A recurrent call, whatever its operator, as layers of directions over sequences."""

    def __init__(self, operator: str, arguments: Arguments) -> None:
        self.data: Tensor = arguments["data"] if "data" in arguments else arguments["input"]
        self.batch_first = operator != MKLDNN and arguments.get("batch_first", False)
        self.sizes = [int(size) for size in arguments.get("batch_sizes", ())]
        if operator == MKLDNN:
            biases = ("weight2", "weight3") if arguments["has_biases"] else ()
            listed = [wide(arguments[name]) for name in ("weight0", "weight1", *biases)]
            self.layers = [[Weights(*listed)]]
            self.states = [arguments["hx_"][None], arguments["cx_"][None]]
            self.backwards = arguments["reverse"]
            return
        if arguments["dropout"] > 0 and arguments["train"] and arguments["num_layers"] > 1:
            raise LookupError(f"{operator}: dropout in training; what was kept is not known")
        self.backwards = False
        directions = 2 if arguments["bidirectional"] else 1
        listed = [wide(each) for each in arguments["weight" if operator == CUDNN else "params"]]
        per = len(listed) // (arguments["num_layers"] * directions)
        groups = [_weights(listed[n : n + per]) for n in range(0, len(listed), per)]
        self.layers = [groups[n : n + directions] for n in range(0, len(groups), directions)]
        if operator == CUDNN:
            states = [arguments["hx"]]
            if arguments["mode"] == _CUDNN_LSTM:
                states.append(arguments["cx"])
        else:
            hx = arguments["hx"]
            states = list(hx) if isinstance(hx, list | tuple) else [hx]
        self.states: list[Tensor] = states

    def sequence(self, sample: int) -> list[Tensor]:
        if self.sizes:
            starts = accumulate([0, *self.sizes])
            rows = [
                start + sample
                for start, size in zip(starts, self.sizes, strict=False)
                if size > sample
            ]
            return [wide(self.data[row]) for row in rows]
        return list(wide(self.data[sample] if self.batch_first else self.data[:, sample]))

    def located(self, element: Element) -> tuple[int, int]:
        """Time and sample of an element of output 0."""
        if not self.sizes:
            return (element[1], element[0]) if self.batch_first else (element[0], element[1])
        ends = list(accumulate(self.sizes))
        time = next(t for t, end in enumerate(ends) if element[0] < end)
        return time, element[0] - (ends[time] - self.sizes[time])

    def walk(
        self,
        cell: Cell,
        layer: int,
        direction: int,
        sample: int,
        inputs: Sequence[Tensor],
        until: int | None,
    ) -> dict[int, State]:
        """The state before each time step, up to `until`; and after the last, at −1."""
        number = layer * len(self.layers[layer]) + direction
        state: State = tuple(wide(each[number, sample]) for each in self.states)
        weights = self.layers[layer][direction]
        before: dict[int, State] = {}
        times = range(len(inputs))
        for t in reversed(times) if self.is_backwards(direction) else times:
            before[t] = state
            if t == until:
                return before
            state = cell(weights, inputs[t], state)
        return {**before, -1: state}

    def is_backwards(self, direction: int) -> bool:
        return self.backwards or direction == 1

    def outputs(
        self, cell: Cell, layer: int, sample: int, inputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """h of each time step, both directions side by side."""
        sides: list[list[Tensor]] = []
        for direction in range(len(self.layers[layer])):
            before = self.walk(cell, layer, direction, sample, inputs, None)
            n = len(inputs)
            after = [t - 1 if t else -1 for t in range(n)]
            if not self.is_backwards(direction):
                after = [t + 1 if t + 1 < n else -1 for t in range(n)]
            sides.append([before[t][0] for t in after])
        return [torch.cat(parts) for parts in zip(*sides, strict=True)]


def _weights(listed: Sequence[Tensor]) -> Weights:
    """Of the two matrices, the two biases if there are any, and the projection if there is one."""
    biases = [each for each in listed[2:] if each.dim() == 1]
    projection = [each for each in listed[2:] if each.dim() == 2]
    first, second = biases or (None, None)
    return Weights(listed[0], listed[1], first, second, projection[0] if projection else None)


def moment(
    operator: str, arguments: Arguments, output: int, element: Element, cell: Cell
) -> Moment:
    """The step that makes an element of output 0 (all h), 1 (the last h) or 2 (the last c)."""
    network = _Network(operator, arguments)
    if output > len(network.states):
        raise LookupError(f"{operator}: output {output} is not explained")
    if output == 0:
        layer = len(network.layers) - 1
        time, sample = network.located(element)
        weights = network.layers[layer][0]
        width = weights.hidden.shape[1]  # of h, which a projection makes narrower than c
        direction, unit = divmod(element[-1], width)
        inputs = network.sequence(sample)
    else:
        number, sample, unit = element if len(element) == 3 else (0, *element)
        layer, direction = divmod(number, len(network.layers[0]))
        inputs = network.sequence(sample)
        time = 0 if network.is_backwards(direction) else len(inputs) - 1
    for below in range(layer):
        inputs = network.outputs(cell, below, sample, inputs)
    before = network.walk(cell, layer, direction, sample, inputs, time)
    return Moment(network.layers[layer][direction], inputs[time], before[time], unit)


def cell_moment(arguments: Arguments, element: Element) -> Moment:
    """The step of `lstm_cell`, `gru_cell`, `rnn_tanh_cell` or `rnn_relu_cell`."""
    sample, unit = element
    named = [arguments[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    weights = _weights([wide(each) for each in named if each is not None])
    hx = arguments["hx"]
    states = hx if isinstance(hx, list | tuple) else [hx]
    state = tuple(wide(each[sample]) for each in states)
    return Moment(weights, wide(arguments["input"][sample]), state, unit)


def fused_parts(arguments: Arguments, sample: int) -> tuple[Tensor, Tensor]:
    """W·x + b and U·h + b of a `_thnn_fused_…_cell`, which takes the products ready-made."""
    parts: list[Tensor] = []
    for side in ("input", "hidden"):
        gates, bias = wide(arguments[f"{side}_gates"][sample]), arguments[f"{side}_bias"]
        parts.append(gates if bias is None else gates + wide(bias))
    return parts[0], parts[1]
