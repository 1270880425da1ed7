"""The verb: where one number of a recorded pass comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from forwardpass import operators
from forwardpass.errors import UsageError
from forwardpass.explaining.backward import way_back
from forwardpass.explaining.capturing import Captured, captured, check_numbers
from forwardpass.explaining.targets import GivenError, found, is_readable
from forwardpass.explaining.views import Element, origin, seen_in
from forwardpass.nouns.calls import Call, Value
from forwardpass.nouns.explanations import Equation, Explanation, Part
from forwardpass.nouns.records import Record
from forwardpass.operators import activation, batch_norm, kinds
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
    if gradient:
        back = way_back(done, element, loss)
        return Explanation(forward=record.forward, element=element, parts=(), gradient=back)
    parts = tuple(one.part for one in explained(done, element))
    return Explanation(forward=record.forward, element=element, parts=parts)


class Explained(NamedTuple):
    """The arithmetic of one element of what a call made, with the tensors of that call.

    Attributes:
        made: the value that the call made; the element stands in it at `part.element`.
        came: the real operands and results.
    """

    part: Part
    call: Call
    made: Value
    came: Captured


def explained(record: Recording, element: str) -> list[Explained]:
    """The call that computed an element, then the norm and the activation that follow a layer.

    Raises as `explain` does.
    """
    check_numbers(record)
    value, index, moment = found(record, element, backward=False)
    start = origin(record, value, index, moment)
    if start.call is None and start.value.origin == "unknown":
        raise UsageError(
            f"{element} is element {list(start.element)} of {start.value}, which no call was seen "
            f"to make: {record.lacks('origins')}"
        )
    if start.call is None:
        of = start.value.name or "a value"
        raise GivenError(f"{element} is element {list(start.element)} of {of}, which")
    is_readable(element, start.value)
    wanted = [
        (start.call, start.value, start.element),
        *following(record, start.call, start.value, start.element),
    ]
    came = captured(record, [call.index for call, _, _ in wanted])
    return [
        Explained(_part(record, call, made, at, came[call.index]), call, made, came[call.index])
        for call, made, at in wanted
    ]


def following(
    record: Recording, call: Call, value: Value, element: Element
) -> Iterator[tuple[Call, Value, Element]]:
    """The norm over a batch and the activation through which alone goes on what a layer made, and
    the same element there."""
    is_affine = any(layer.affine == call.index for layer in record.layers)
    if not is_affine and operators.find(call.packet) is not batch_norm:
        return
    while (after := _only_reader(record, value)) is not None:
        reader, read = after
        formula, made = operators.find(reader.packet), record.values[reader.outputs[0]]
        if formula not in (batch_norm, activation) or made.shape != read.shape:
            return
        places = seen_in(record, value, element, read)
        if len(places) != 1:
            return
        value, element = made, places[0]
        yield reader, value, element
        if formula is activation:
            return


def _only_reader(record: Recording, value: Value) -> tuple[Call, Value] | None:
    """The only call that reads a value or a view of it, as its first operand; and what it reads."""
    serial = value.serial
    while len(readers := record.graph.readers(serial)) == 1:
        (reader,) = readers
        if not reader.outputs or reader.inputs[0] != serial or reader.outputs[0] == serial:
            return None
        if reader.kind != "view":
            return reader, record.values[serial]
        serial = reader.outputs[0]
    return None


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
    lacking = _unexplained(call)
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


def _unexplained(call: Call) -> str:
    """Why a number has no arithmetic, where no formula covers its operator."""
    if call.kind == "random":
        return f"{call.short} draws this number at random"
    if not call.inputs or kinds.reads_shape(call.operator):
        return f"{call.short} reads no number: it makes this one of its arguments alone"
    return f"how {call.short} computes is not written out; only what it reads is shown"


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
