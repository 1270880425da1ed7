"""The way back: ∂loss/∂w = Σ δ · x, with the real numbers, beside what autograd gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from forwardpass import operators
from forwardpass.errors import UsageError
from forwardpass.explaining.capturing import Capture, live_pass
from forwardpass.explaining.targets import found
from forwardpass.explaining.views import Element, seen_in
from forwardpass.nouns.calls import Call, Ref, Value
from forwardpass.nouns.explanations import Gradient, Step
from forwardpass.nouns.records import Record
from forwardpass.recording.costs import bound
from forwardpass.recording.schemas import schema_of
from forwardpass.recording.verb import recorded
from forwardpass.tensors.trees import flatten

Loss = str | Callable[[dict[str, torch.Tensor]], torch.Tensor] | None


def way_back(record: Record, text: str, value: Value, element: Element, loss: Loss) -> Gradient:
    """The gradient of a loss by one element of a parameter or an input.

    The pass runs with autograd on; where the record was made without, the operators may be others,
    so it is recorded anew.
    """
    this = live_pass(record)
    if this.grad != "on":
        return _with_autograd(record, text, loss)
    if value.origin not in ("parameter", "input"):
        raise UsageError(
            f"{text}: the way back is explained for a parameter (`fc1.weight[7, 3]`) or an input "
            f"of the pass ({', '.join(record.inputs) or 'none'})"
        )
    readers = _readers(record, value)
    capture = Capture(record, [call.index for call, _ in readers], backward=True)
    with this.staged() as (state, args, kwargs):
        given = this.named(args, kwargs)
        held = {entry.name: entry.tensor for entry in state.held.values()}
        leaf = given[value.name] if value.origin == "input" else held[value.name]
        if not leaf.is_floating_point():
            raise UsageError(f"{text} is {value.dtype}: only floating values have gradients")
        flags = [(t, t.requires_grad) for t in held.values() if t.is_leaf]
        try:
            leaf.requires_grad_(True)
            with capture:
                outputs = flatten(this.module(*args, **kwargs))
                capture.follow()
            scalar, said = _loss(outputs, record, loss)
            if not scalar.requires_grad:
                raise UsageError(f"{said} does not depend on {value.name} through autograd")
            (came,) = torch.autograd.grad(scalar, [leaf], allow_unused=True)
        finally:
            for tensor, flag in flags:
                tensor.requires_grad_(flag)
    autograd = float(came[element]) if isinstance(came, torch.Tensor) else 0.0  # pyright: ignore[reportUnnecessaryIsInstance]
    steps = _steps(record, value, element, readers, capture)
    total = sum(step[-1].value for step in steps) if steps else None
    lines = [line for step in steps or () for line in step]
    if steps and len(steps) > 1:
        lines.append(Step("∂loss", f"sum over its {len(steps)} uses", float(total or 0.0)))
    index = ", ".join(map(str, element))
    return Gradient(
        f"{value.name}[{index}]", said, float(scalar.detach()), tuple(lines), total, autograd
    )


def _with_autograd(record: Record, text: str, loss: Loss) -> Gradient:
    """The same for a new record of the pass with autograd on."""
    fresh = recorded(record.live.forward, replace(record.live.this, grad="on"), record.notes)
    value, element = found(fresh, text, backward=True)
    return way_back(fresh, text, value, element, loss)


def _readers(record: Record, value: Value) -> list[tuple[Call, Value]]:
    """The calls that compute with a value, or with a view of it, and what each of them reads."""
    views = {value.serial: value}
    parts: list[tuple[Call, Value]] = []
    for call in record.calls:
        for serial in dict.fromkeys(call.inputs):
            if serial not in views:
                continue
            if call.kind == "view":
                for made in call.outputs:
                    views[made] = record.values[made]
            else:
                parts.append((call, record.values[serial]))
    return parts


def _steps(
    record: Record, value: Value, element: Element, readers: list[tuple[Call, Value]],
    capture: Capture,
) -> list[list[Step]] | None:  # fmt: skip
    """The arithmetic of each reader; None where one of them has no breakdown."""
    parts: list[list[Step]] = []
    for call, read in readers:
        came = capture.calls[call.index]
        if came.gradient is None:
            continue  # nothing of the loss goes through it
        place = seen_in(record, value, element, read)
        schema = schema_of(record.live.operators[call.index])
        formula: Any = operators.find(schema.packet)
        if place is None:
            continue  # this reader looks at another part of it
        names = [n for n, a in _given(schema.names, call) if a == Ref(read.serial)]
        if not hasattr(formula, "gradient") or len(names) != 1:
            return None
        arguments = bound(schema, call, came.tensors)
        try:
            parts.append(formula.gradient(schema.packet, arguments, names[0], place, came.gradient))
        except LookupError as error:
            if type(error) is not LookupError:
                raise
            return None
    return parts


def _given(names: tuple[str, ...], call: Call) -> list[tuple[str, Any]]:
    return [*zip(names, call.arguments, strict=False), *call.keywords.items()]


def _loss(outputs: dict[str, torch.Tensor], record: Record, loss: Loss) -> tuple[torch.Tensor, str]:
    """The scalar to differentiate, and what it is in words."""
    if callable(loss):
        scalar = loss(outputs)
        if scalar.numel() != 1:
            raise UsageError(f"loss(outputs) must give one number, not {tuple(scalar.shape)}")
        return scalar.reshape(()), getattr(loss, "__name__", "loss")
    if isinstance(loss, str):
        value, element = found(record, loss, backward=False)
        for path, serial in record.outputs.items():
            if serial == value.serial:
                return outputs[path][element], f"{path}[{', '.join(map(str, element))}]"
        raise UsageError(
            f"loss={loss!r} must be an element of an output: {', '.join(record.outputs)}"
        )
    for path, tensor in outputs.items():
        if tensor.is_floating_point():
            return tensor.sum(), f"the sum of {path}" if tensor.numel() > 1 else path
    raise UsageError("no output is floating: there is nothing to differentiate")
