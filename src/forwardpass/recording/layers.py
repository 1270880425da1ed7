"""Which calls make a layer: the affine part W · x + b, and the activation that follows it."""

from __future__ import annotations

from collections.abc import Sequence

from forwardpass.nouns.calls import Call, Parameter, Value
from forwardpass.nouns.graphs import Graph
from forwardpass.nouns.records import Layer
from forwardpass.operators import activation, convolution, find, linear


def layers_of(
    calls: Sequence[Call],
    values: Sequence[Value],
    paths: Sequence[str],
    parameters: Sequence[Parameter],
) -> tuple[Layer, ...]:
    """Every call that multiplies inputs by a weight of the module, in order.

    `paths` is the path of each module call.
    """
    shapes = {p.name: p.shape for p in parameters}
    graph = Graph(calls, values)
    found: list[Layer] = []
    for call in calls:
        if not call.parameters or find(call.packet) not in (linear, convolution):
            continue
        weights = [name for name in call.parameters if len(shapes.get(name, ())) > 1]
        biases = [name for name in call.parameters if len(shapes.get(name, ())) == 1]
        if len(weights) == 1:
            after = _activation(graph, call)
            path = paths[call.module]
            found.append(Layer(path, call.index, weights[0], biases[0] if biases else "", after))
    return tuple(found)


def _activation(graph: Graph, call: Call) -> int:
    """The only call that reads what `call` made, views left out, where that is an activation."""
    serial = call.outputs[0]
    while True:
        following = graph.readers(serial)
        if len(following) != 1:
            return -1
        reader = following[0]
        if reader.kind == "view" and reader.outputs:
            if reader.outputs[0] == serial:
                return -1
            serial = reader.outputs[0]
            continue
        return reader.index if find(reader.packet) is activation else -1
