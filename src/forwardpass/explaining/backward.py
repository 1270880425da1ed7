"""The way back: ∂loss/∂w = Σ δ · x, with the real numbers, beside what autograd gives."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from forwardpass import operators
from forwardpass.errors import UsageError
from forwardpass.explaining.capturing import Capture
from forwardpass.explaining.targets import found, is_readable, output_element
from forwardpass.explaining.views import Element, Traced, moves, operands, origin, seen_in
from forwardpass.nouns.calls import Call, Ref, Value
from forwardpass.nouns.explanations import Equation, Gradient, Term
from forwardpass.recording.arguments import copied
from forwardpass.recording.costs import bound
from forwardpass.recording.passes import ONE_PASS_AT_A_TIME
from forwardpass.recording.recordings import Recording, recorded
from forwardpass.tensors.dtypes import coarsest, spelled
from forwardpass.tensors.modules import parameters_of
from forwardpass.tensors.trees import flatten

Loss = str | Callable[[dict[str, torch.Tensor]], torch.Tensor] | None


def way_back(record: Recording, text: str, loss: Loss) -> Gradient:
    """The gradient of a loss by one element of a parameter, an input, or what the pass computed.

    The pass runs with autograd on, and what is asked for requires a gradient. Where the record was
    made otherwise the operators may be others, so the pass is recorded anew.
    """
    if record.failed is not None:
        raise UsageError(f"the pass raised {record.failed.error}: there is no way back through it")
    of = text.strip()
    value, element, moment = found(record, text, backward=True)
    is_readable(of, value)
    if not value.dtype.startswith(("f", "bf")):
        raise UsageError(f"{of} is {value.dtype}: only floating values have gradients")
    start = origin(record, value, element, moment)
    if start.call is None and start.value.origin not in ("parameter", "input"):
        raise UsageError(
            f"{of} is a {start.value.origin}: the way back is explained for a parameter "
            f"(`fc1.weight[7, 3]`), an input ({', '.join(record.inputs) or 'it has none'}) and "
            "what the pass computed"
        )
    name = start.value.name if start.call is None else None
    flags = _requiring(record, name)  # another thread may record the module meanwhile
    with ONE_PASS_AT_A_TIME, torch.inference_mode(False), flags as (ready, leaves):
        if ready is not record:
            value, element, moment = found(ready, text, backward=True)
            if start.call and of.startswith("#") and not _same_call(of, record, ready):
                raise UsageError(
                    f"{of}: with autograd on, the calls of the pass have other numbers; record it "
                    'with grad="on", or name a module'
                )
            start = origin(ready, value, element, moment)
        return _followed(ready, of, start, leaves, loss)


def _same_call(of: str, record: Recording, other: Recording) -> bool:
    number = int(of[1:].partition("[")[0])
    return record.calls[number].operator == other.calls[number].operator


@contextmanager
def _requiring(record: Recording, name: str | None) -> Generator[tuple[Recording, list[str]]]:
    """A record of the pass in which a parameter or input requires a gradient (all do, without a
    name), and the names of those that do. Flags of the module's parameters are put back."""
    this = record.this
    args, kwargs = copied((this.arguments, this.keywords))
    parameters: dict[str, torch.Tensor] = dict(parameters_of(this.module))
    every = {**parameters, **this.named(args, kwargs)}
    wanted = {
        key: tensor
        for key, tensor in every.items()
        if name in (None, key) and tensor.is_leaf and tensor.is_floating_point()
    }
    flags = [(tensor, tensor.requires_grad) for tensor in wanted.values()]
    try:
        for tensor in wanted.values():
            tensor.requires_grad_(True)
        if this.grad == "on" and all(flag for _, flag in flags):
            yield record, list(wanted)
        else:
            fresh = replace(this, grad="on", arguments=args, keywords=kwargs)
            yield recorded(record.forward, fresh, record.notes), list(wanted)
    finally:
        for tensor, flag in flags:
            tensor.requires_grad_(flag)


def _followed(
    record: Recording, of: str, start: Traced, names: list[str], loss: Loss
) -> Gradient:  # fmt: skip
    """The gradient by the number that stands at `start`, by the pass and then its way back."""
    call, value, element = start
    if call is None:
        of = f"{value.name}[{', '.join(map(str, element))}]"
    readers = _readers(record, value)
    wanted = {reader.index for reader, _ in readers} | ({call.index} if call else set())
    capture = Capture(record, wanted, backward=True)
    this = record.this
    with this.staged(contents=True) as (_, args, kwargs):
        every = {**dict(parameters_of(this.module)), **this.named(args, kwargs)}
        leaves = [every[name] for name in names]
        with capture:
            outputs = flatten(this.module(*args, **kwargs))
            capture.follow()
        capture.check()
        scalar, said = _loss(outputs, record, loss)
        if not scalar.requires_grad:
            raise UsageError(f"{said} does not depend on {of} through autograd")
        came = torch.autograd.grad(scalar, leaves, allow_unused=True)
        direct = list(_direct(record, value, element, outputs, loss))
    if call is None:
        whole = came[0]
    else:
        whole = capture.calls[call.index].gradients.get(call.outputs.index(value.serial))
    steps = _steps(record, value, element, readers, capture)
    steps = None if steps is None else steps + direct
    lines = [line for step in steps or () for line in step]
    total = None
    if steps is not None:
        total = sum(step[-1].value for step in steps)
        if not steps:
            lines.append(Equation("gradient", "no use of it reaches the loss", 0.0))
        elif len(steps) > 1:
            lines.append(Equation("gradient", f"the sum over its {len(steps)} uses", total))
    number = _element(whole, element)
    ways = [way for came in capture.calls.values() for way in came.gradients.values()]
    dtype = spelled(coarsest({scalar.dtype, *(way.dtype for way in ways)}))
    return Gradient(of, said, float(scalar.detach()), tuple(lines), total, number, dtype)


def _direct(
    record: Recording, value: Value, element: Element, outputs: dict[str, torch.Tensor], loss: Loss
) -> Iterator[list[Equation]]:
    """What the loss adds where an output is the value itself, or a view of it."""
    held = {
        path: places
        for path, serial in record.outputs.items()
        if (places := seen_in(record, value, element, record.values[serial]))
    }
    if not held:
        return
    cut = {path: tensor.detach().clone() for path, tensor in outputs.items()}
    for tensor in cut.values():
        tensor.requires_grad_(tensor.is_floating_point())
    scalar, _ = _loss(cut, record, loss)
    for path, places in held.items():
        if scalar.requires_grad and cut[path].requires_grad:
            came = torch.autograd.grad(scalar, [cut[path]], allow_unused=True, retain_graph=True)
            for place in places:
                term = Term(f"δ[{', '.join(map(str, place))}]", _element(came[0], place))
                if term.value:
                    said = f"Σ δ, as the loss reads {path}"
                    yield [Equation("gradient", said, term.value, (term,))]


def _element(gradient: torch.Tensor | None, element: Element) -> float:
    """One number of what autograd gave; 0 where it gave nothing."""
    if gradient is None:
        return 0.0
    return float((gradient if gradient.layout is torch.strided else gradient.to_dense())[element])


def _readers(record: Recording, value: Value) -> list[tuple[Call, Value]]:
    """The calls that compute with a value, or with a view of it, and what each of them reads."""
    views = {value.serial: value}
    parts: list[tuple[Call, Value]] = []
    for call in record.calls:
        for serial in dict.fromkeys(call.inputs):
            if serial not in views:
                continue
            if serial in operands(call) and moves(record, call):
                for made in call.outputs:
                    views[made] = record.values[made]
            else:
                parts.append((call, record.values[serial]))
    return parts


def _steps(
    record: Recording, value: Value, element: Element, readers: list[tuple[Call, Value]],
    capture: Capture,
) -> list[list[Equation]] | None:  # fmt: skip
    """The arithmetic of each reader; None where one of them has no breakdown."""
    parts: list[list[Equation]] = []
    rewritten = {storage for call in record.calls for storage in call.writes}
    for call, read in readers:
        came = capture.calls[call.index]
        delta = came.gradients.get(0)
        if delta is None:
            continue  # nothing of the loss goes through it
        places = seen_in(record, value, element, read)
        if read.storage in rewritten:  # only where nothing was written over it by then
            still = [origin(record, read, place, call.index) for place in places]
            places = [p for p, o in zip(places, still, strict=True) if o[1:] == (value, element)]
        if not places:
            continue  # this reader looks at another part of it
        schema = record.schema(call)
        formula: Any = operators.find(schema.packet)
        names = [n for n, a in _given(schema.names, call) if a == Ref(read.serial)]
        if not hasattr(formula, "gradient") or not names:
            return None
        arguments = bound(schema, call, came.tensors)
        try:
            parts += [
                formula.gradient(schema.packet, arguments, name, place, delta)
                for name in names  # both factors, in x · x
                for place in places
            ]
        except LookupError as error:
            if type(error) is not LookupError:
                raise
            return None
    return parts


def _given(names: tuple[str, ...], call: Call) -> list[tuple[str, Any]]:
    return [*zip(names, call.arguments, strict=False), *call.keywords.items()]


def _loss(
    outputs: dict[str, torch.Tensor], record: Recording, loss: Loss
) -> tuple[torch.Tensor, str]:
    """The scalar to differentiate, and what it is in words."""
    if callable(loss):
        scalar: Any = loss(outputs)
        said = getattr(loss, "__name__", "loss").replace("<lambda>", "your function")
        if not isinstance(scalar, torch.Tensor):
            raise UsageError(f"loss(outputs) must give a tensor, not {type(scalar).__name__}")
        if scalar.numel() != 1:
            raise UsageError(f"loss(outputs) must give one number, not {tuple(scalar.shape)}")
        return scalar.reshape(()), said
    if isinstance(loss, str):
        path, element = output_element(record, loss)
        return outputs[path][element], f"{path}[{', '.join(map(str, element))}]"
    for path, tensor in outputs.items():
        if tensor.is_floating_point():
            return tensor.sum(), f"the sum of {path}" if tensor.numel() > 1 else path
    raise UsageError("no output is floating: there is nothing to differentiate")
