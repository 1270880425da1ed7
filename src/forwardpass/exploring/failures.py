"""PassFailure: the call at which a pass raised, what met there, and what it would have taken."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import torch
from torch import nn

from forwardpass.guessing.asking import Refused
from forwardpass.nouns.calls import ModuleCall, Value
from forwardpass.nouns.records import Failed, Record
from forwardpass.recording.passes import Pass
from forwardpass.tensors.dtypes import TORCH
from forwardpass.tensors.modules import children_of, parameters_of, parts_of

_MOST: Final = 3
"""Forms that are named: more tell nothing."""


class MetOperand(msgspec.Struct, frozen=True):
    """An operand of the call that raised: its form, `f32[1 800]`, and where it comes from."""

    form: str
    of: str


class PassFailure(msgspec.Struct, frozen=True):
    """Where a pass raised.

    Attributes:
        call: how many calls had run. module: index of its module call in the record, -1 for none.
        takes: forms that the module would have taken, of those that were tried.
        given: the inputs of the pass.
    """

    call: int
    operator: str
    module: int
    path: str
    kind: str
    site: str
    error: str
    met: tuple[MetOperand, ...]
    takes: tuple[str, ...]
    given: tuple[str, ...]


def failure(record: Record, this: Pass | None) -> PassFailure | None:
    """None where the pass did not raise; without `this` nothing can be tried."""
    failed = record.failed
    if failed is None:
        return None
    at = max((i for i, m in enumerate(record.modules) if m.path == failed.module), default=-1)
    entry = record.modules[at] if at >= 0 else None
    module = None
    if this is not None and entry is not None:
        module = dict(parts_of(this.module, every_name=True)).get(entry.path)
    return PassFailure(
        call=len(record.calls),
        operator=failed.operator,
        module=at,
        path=failed.module,
        kind="" if entry is None else entry.kind,
        site="" if failed.site is None else str(failed.site),
        error=failed.error,
        met=tuple(MetOperand(form, _origin(record, entry, form)) for form in failed.operands),
        takes=() if module is None or entry is None
        else tuple(_takes(record, failed, entry, module)),
        given=tuple(f"{path} {record.values[s]}" for path, s in record.inputs.items()),
    )  # fmt: skip


def _origin(record: Record, entry: ModuleCall | None, form: str) -> str:
    """Where an operand of this form comes from, if it can be only one thing."""
    inside = "" if entry is None or not entry.path else f"{entry.path}."
    names = [
        p.name for p in record.parameters
        if p.name.startswith(inside) and form == f"{p.dtype}[{' '.join(map(str, p.shape))}]"
    ]  # fmt: skip
    values = [] if entry is None else [record.values[serial] for serial in entry.inputs]
    made = [_made(record, value) for value in values if str(value) == form]
    found = [*names, *made]
    return found[0] if len(found) == 1 else ""


def _made(record: Record, value: Value) -> str:
    if value.producer < 0:
        return f"{value.origin} {value.name}".rstrip()
    call = record.calls[value.producer]
    path = record.module(call).path
    return f"call #{call.index}, {call.name or call.short}" + (f" in {path}" if path else "")


def _takes(record: Record, failed: Failed, entry: ModuleCall, module: nn.Module) -> Iterator[str]:
    """What a copy of a layer takes in place of each tensor that went in, where it is the layer
    that says so, and where it raises as the pass did."""
    values = [record.values[serial] for serial in entry.inputs]
    if (
        next(children_of(module), None) is not None
        or not values
        or any(value.nested is not None or value.dtype not in TORCH for value in values)
    ):
        return
    twin, tensors = copy.deepcopy(module), [_empty(value) for value in values]
    with torch.no_grad():
        try:
            twin(*tensors)
        except Exception as error:  # noqa: BLE001 - that it raises is what is asked
            if f"{type(error).__name__}: {error}" != failed.error:
                return
            refused = Refused(
                twin, tuple(tensors), {}, error, tuple(weight for _, weight in parameters_of(twin))
            )
            yield from _wanted(refused, values, tensors)


def _wanted(
    refused: Refused, values: Sequence[Value], tensors: Sequence[torch.Tensor]
) -> Iterator[str]:
    for value, tensor in zip(values, tensors, strict=True):
        wants = [wanted for wanted in refused.wants([tensor]) if wanted.of == "weights"]
        fewest = min((len(wanted.sizes) for wanted in wants), default=0)
        for wanted in [one for one in wants if len(one.sizes) == fewest][:_MOST]:
            sizes = [wanted.sizes.get(axis, size) for axis, size in enumerate(value.shape)]
            form = f"{wanted.dtype or value.dtype}[{' '.join(map(str, sizes))}]"
            yield f"{wanted}, in place of {value}" if wanted.more else f"{form} in place of {value}"


def _empty(value: Value) -> torch.Tensor:
    return torch.zeros(value.shape, dtype=TORCH[value.dtype])
