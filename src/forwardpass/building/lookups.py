"""Whole numbers that a module looks up in tables: below and above what it raises.

Graphs of other libraries look up without a look at the bounds: what is outside gives numbers of
somebody else's memory, or of a row that was not meant. So the bounds go with the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from torch import nn

from forwardpass.building.replicas import Inputs
from forwardpass.building.subjects import arguments_of
from forwardpass.errors import PassError, UsageError
from forwardpass.loading.programs import ModuleProgram
from forwardpass.nouns.calls import Call, Ref
from forwardpass.nouns.signatures import Signature
from forwardpass.operators.kinds import bare, casts, keeps_numbers
from forwardpass.recording import Recording
from forwardpass.recording.costs import by_name
from forwardpass.recording.passes import Pass
from forwardpass.recording.recordings import recorded

Bounds = tuple[int, int]
_FROM_ZERO: Final = {"embedding": "indices", "index_select": "index"}
"""Operators that look up in the first axis, or along `dim`, by the argument of this name."""


def bounds(module: nn.Module, signature: Signature, inputs: Inputs) -> dict[str, Bounds]:
    """The smallest and the largest number that each input may hold, by its path.

    Of inputs of which every element is looked up as it is; an input that is looked up in several
    tables may hold what all of them have. Of others nothing is known.
    """
    args, kwargs = arguments_of(module, signature, inputs)
    this = Pass.of(module, args, kwargs, grad="inference")
    try:
        record = recorded(type(module).__name__, this, ())
    except (PassError, UsageError):  # it computes, and not under a recorder: then nothing is known
        return {}
    found: dict[int, Bounds] = {}
    for call in record.calls:
        for index, low, high in _looked_up(record, call):
            serial = _given(record, index)
            before = found.get(serial, (low, high))
            found[serial] = max(before[0], low), min(before[1], high)
    program = ModuleProgram(module)
    placed, names = program.placed([item.path for item in signature.inputs]), program.arguments()
    by_path: dict[str, Bounds] = {}
    for path, place in placed.items():
        root, _, rest = place.partition(".")
        known = names[int(root)] if root.isdigit() and int(root) < len(names) else root
        serial = record.inputs.get(f"{known}.{rest}" if rest else known)
        if serial in found:
            by_path[path] = found[serial]
    return by_path


def _looked_up(record: Recording, call: Call) -> Iterator[tuple[int, int, int]]:
    """The values by which a call looks up, with the smallest and the largest number it takes."""
    operator = bare(call.packet)
    if operator not in _FROM_ZERO and operator != "index":
        return
    given: Mapping[str, Any] = by_name(record.schema(call), call)
    table = given["weight" if operator == "embedding" else "self"]
    if not isinstance(table, Ref):
        return
    shape = record.values[table.value].shape
    if operator == "index":
        for axis, index in enumerate(given["indices"]):
            if isinstance(index, Ref) and record.values[index.value].dtype != "bool":
                yield index.value, -shape[axis], shape[axis] - 1
        return
    index = given[_FROM_ZERO[operator]]
    if isinstance(index, Ref) and shape:
        yield index.value, 0, shape[given.get("dim", 0)] - 1


def _given(record: Recording, serial: int) -> int:
    """The value of which this one has all the numbers, in whatever shape and dtype."""
    while (maker := record.graph.maker(serial)) is not None:
        same = keeps_numbers(maker.packet) or casts(maker.packet)
        if not same or len(maker.inputs) != 1:
            break
        if record.values[maker.inputs[0]].elements != record.values[serial].elements:
            break
        serial = maker.inputs[0]
    return serial
