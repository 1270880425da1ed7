"""The verb: where one number of a recorded pass comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from forwardpass import operators
from forwardpass.errors import UsageError
from forwardpass.explaining.backward import way_back
from forwardpass.explaining.capturing import Captured, captured, check_numbers
from forwardpass.explaining.targets import found, is_readable
from forwardpass.explaining.views import Element, origin, seen_in
from forwardpass.nouns.calls import Call, Value
from forwardpass.nouns.explanations import Equation, Explanation, Part
from forwardpass.nouns.records import Record
from forwardpass.recording.costs import bound
from forwardpass.recording.recordings import Recording, living
from forwardpass.tensors.classes import dispatches


def explain(
    record: Record, element: str, *, gradient: bool = False, loss: Any = None
) -> Explanation:
    """The arithmetic of one element with its real numbers, and the activation that follows.

    Args:
        record: a record of this process; its pass is run again for the numbers.
        element: what to explain, such as `fc1[0, 7]`, `#12[0, 7]`, `output[0, 3]`; with `gradient`
            also a parameter or an input, `fc1.weight[7, 3]`. See explaining.targets.
        gradient: explain the way back: ∂loss/∂element = Σ δ · x, beside autograd's value.
        loss: with `gradient`, what is differentiated: an element of an output (`output[0, 3]`), or
            a function of the outputs by path; without it the sum of the first floating output.

    Raises:
        UsageError: nothing in the record is called so, the index does not fit, the record is from a
            file. PassError: the pass went another way than when it was recorded.
    """
    done = living(record, "explain")
    check_numbers(done)
    value, index, moment = found(done, element, backward=gradient)
    if gradient:
        back = way_back(done, element, loss)
        return Explanation(forward=record.forward, element=element, parts=(), gradient=back)
    start = origin(done, value, index, moment)
    if start.call is None and start.value.origin == "unknown":
        raise UsageError(
            f"{element} is element {list(start.element)} of {start.value}, which no call was seen "
            f"to make: {record.lacks('origins')}"
        )
    if start.call is None:
        raise UsageError(
            f"{element} is element {list(start.element)} of {start.value.name or 'a value'}, which "
            "is given, not computed; --gradient explains its way back"
        )
    is_readable(element, start.value)
    wanted = [(start.call, start.value, start.element)]
    after = _activation(done, start.call, start.value, start.element)
    if after is not None:
        wanted.append(after)
    came = captured(done, [call.index for call, _, _ in wanted])
    parts = tuple(_part(done, call, made, at, came[call.index]) for call, made, at in wanted)
    return Explanation(forward=record.forward, element=element, parts=parts)


def _activation(
    record: Recording, call: Call, value: Value, element: Element
) -> tuple[Call, Value, Element] | None:
    """The activation that follows a layer's affine part, and the same element there."""
    layer = next((layer for layer in record.layers if layer.affine == call.index), None)
    if layer is None or layer.activation < 0:
        return None
    after = record.calls[layer.activation]
    places = seen_in(record, value, element, record.values[after.inputs[0]])
    return (after, record.values[after.outputs[0]], places[0]) if len(places) == 1 else None


def _part(record: Recording, call: Call, made: Value, element: Element, came: Captured) -> Part:
    """The arithmetic of one element of what a call made."""
    schema = record.schema(call)
    output = call.outputs.index(made.serial)
    for tensor in (came.made[output], *came.tensors.values()):
        if dispatches(type(tensor)):
            raise UsageError(
                f"{call.name or call.short} computes with a {type(tensor).__name__}, a class of "
                "tensors that stand for others: there are no numbers in it to explain"
            )
    recorded = float(came.made[output][element])
    formula = operators.find(schema.packet)
    steps: Sequence[Equation] = ()
    lacking = "no file in operators/ explains this operator"
    inputs: tuple[str, ...] = ()
    if formula is not None:
        arguments = bound(schema, call, came.tensors)
        try:
            steps = formula.terms(schema.packet, arguments, output, element)
        except LookupError as error:
            if type(error) is not LookupError:
                raise
            lacking = str(error)
    if not steps:
        inputs = tuple(_ranged(record.values[s], came.tensors[s]) for s in call.inputs)
    return Part(
        call.index, call.operator, call.name, record.module(call).path, str(record.site(call)),
        element, tuple(steps), "" if steps else lacking, inputs,
        steps[-1].value if steps else None, recorded, made.dtype,
    )  # fmt: skip


def _ranged(value: Value, tensor: torch.Tensor) -> str:
    """A value in words: its name where it has one, shape, and range."""
    name = f"{value.name} " if value.name else ""
    if tensor.layout is not torch.strided or tensor.is_nested or not tensor.numel():
        return f"{name}{value}"
    if tensor.dtype == torch.bool or tensor.is_complex() or tensor.is_quantized:
        return f"{name}{value}"
    if tensor.is_floating_point():
        tensor = tensor.double()  # an f8 tensor has no minimum
    low, high = tensor.min().item(), tensor.max().item()
    return f"{name}{value} from {low:.4g} to {high:.4g}"
