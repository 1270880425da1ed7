"""What a call costs: macs by the operators' formulas, elements and bytes by its operands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from forwardpass import operators
from forwardpass.nouns.calls import Call, Value, filled
from forwardpass.operators import encoder_layer
from forwardpass.recording.notes import RawCall
from forwardpass.recording.schemas import Schema

_CONTRACTS = re.compile(
    r"(^|_)(linear|matmul|mm|bmm|mv|dot|einsum|conv\w*|attention|attn|lstm|gru|rnn|gemm|bilinear|"
    r"trilinear|cdist|kron|tensordot|inv\w*|pinv\w*|det|slogdet|matrix_exp|solve\w*|cholesky\w*|"
    r"qr|svd\w*|eigh?|lu\w*|fft\w*)(_|$)"
)
"""Names that say that an operator contracts; those without a formula are named, never counted 0."""
_BY_SAMPLE = {
    "aten.linear": "aten.linear", "aten.matmul": "aten.matmul", "aten.bmm": "aten.mm",
    "aten.scaled_dot_product_attention": "aten.scaled_dot_product_attention",
}  # fmt: skip
"""Products of nested tensors, and the product that they make of each sample."""
_PURE = {"aten", "prims", "prim"}


def cost(
    schema: Schema, raw: RawCall, values: Sequence[Value], kind: str
) -> tuple[int | None, int, int, int]:
    """Macs (None where no formula is known), elements, bytes read, bytes written.

    Elements are numbers written, or read where more are read (a reduction); a contraction counts
    its macs instead. A view moves nothing.
    """
    if kind == "view":
        return 0, 0, 0, 0
    ins = [values[s] for s in _once(raw.inputs)]
    outs = [values[s] for s in _once(raw.outputs)]
    written = sum([value.nbytes for value in outs])
    if schema.packet in _PICKS:
        read = written + sum([value.nbytes for value in ins[1:]])
    else:
        read = sum([value.nbytes for value in ins])
    macs = _macs(schema, raw, values, ins, outs)
    if macs != 0:
        return macs, 0, read, written
    elements = sum([value.elements for value in outs])
    return 0, max([elements, *[value.elements for value in ins]]), read, written


def _once(serials: tuple[int, ...]) -> Iterable[int]:
    return serials if len(serials) < 2 else dict.fromkeys(serials)


def _macs(
    schema: Schema, raw: RawCall, values: Sequence[Value], ins: list[Value], outs: list[Value]
) -> int | None:
    formula = operators.find(schema.packet)
    if formula is None:
        return None if _may_contract(schema.packet) else 0
    if formula is not encoder_layer and any(value.nested for value in ins):
        return _nested_macs(schema, raw, values)
    return formula.macs(schema.packet, bound(schema, raw, values), outs)


@cache
def _may_contract(packet: str) -> bool:
    """Whether an operator without a formula may contract: by its name, or since nobody knows it."""
    namespace, _, name = packet.partition(".")
    return namespace not in _PURE or bool(_CONTRACTS.search(name))


_PICKS = {"aten.embedding", "aten.index", "aten.index_select", "aten.gather", "aten.take"}
"""They read of their first operand only what they pick."""


class _Sample(NamedTuple):
    """One sample of a nested tensor, as the formulas look at it."""

    shape: tuple[int, ...]


def _nested_macs(schema: Schema, raw: RawCall, values: Sequence[Value]) -> int | None:
    """The sum over the samples of nested operands, for products; else None."""
    packet = _BY_SAMPLE.get(schema.packet)
    if packet is None:
        return 0 if not _CONTRACTS.search(schema.packet.partition(".")[2]) else None
    formula = operators.find(packet)
    assert formula is not None
    given = bound(schema, raw, values)
    samples = max(len(v.nested or ()) for v in given.values() if isinstance(v, Value))
    total = 0
    for place in range(samples):
        one = {
            name: _Sample(v.nested[place]) if isinstance(v, Value) and v.nested else v
            for name, v in given.items()
        }
        total += formula.macs(packet, one, ())
    return total


def bound(schema: Schema, raw: RawCall | Call, tensors: Any) -> dict[str, Any]:
    """The arguments by the names of the schema, defaults included; tensors by `tensors[serial]`."""
    given = by_name(schema, raw)
    return {name: filled(value, tensors.__getitem__) for name, value in given.items()}


def by_name(schema: Schema, raw: RawCall | Call) -> dict[str, Any]:
    """The arguments by the names of the schema, defaults included; tensors as Ref."""
    given = dict(zip(schema.names, raw.arguments, strict=False))
    return {**schema.defaults, **given, **raw.keywords}
