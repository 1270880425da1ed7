"""The rules that the graph of a record keeps, as code that runs: a part of rung c."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from forwardpass.nouns.calls import Call, Value, references
from forwardpass.nouns.records import Record
from forwardpass.nouns.validations import Fault
from forwardpass.recording.assembling import kind_of
from forwardpass.recording.schemas import schema_of


def broken(record: Record, operators: Sequence[Any]) -> Iterator[Fault]:
    """What of a record contradicts itself, or the schemas of its operators."""
    writes: dict[int, int] = {}
    for call, operator in zip(record.calls, operators, strict=True):
        for said in _of_call(record, call, operator):
            yield Fault("c", call.index, call.operator, said)
        for storage in call.writes:
            writes[storage] = writes.get(storage, 0) + 1
        for serial in call.outputs:
            value = record.values[serial]
            if value.producer == call.index and value.version != writes.get(value.storage, 0):
                said = f"value {serial} says version {value.version} of its storage"
                yield Fault("c", call.index, call.operator, said)
    roots: dict[int, list[Value]] = {}
    for value in record.values:
        yield from _of_value(record, value)
        if value.storage > len(roots):  # they are numbered as they appear
            said = f"value {value.serial} says storage {value.storage}, after {len(roots)} of them"
            yield Fault("c", value.producer, "", said)
        if value.base < 0:
            roots.setdefault(value.storage, []).append(value)
    for storage, values in roots.items():  # only what was given may share memory from the start
        if len(values) > 1 and any(value.producer >= 0 for value in values):
            serials = ", ".join(str(value.serial) for value in values)
            said = f"values {serials} are each new memory, and all say storage {storage}"
            yield Fault("c", values[-1].producer, "", said)


def _of_call(record: Record, call: Call, operator: Any) -> Iterator[str]:
    refs = tuple(references((call.arguments, list(call.keywords.values()))))
    if refs != call.inputs:
        yield f"it reads {list(call.inputs)}, and its arguments are {list(refs)}"
    late = [s for s in call.inputs if record.values[s].producer >= call.index]
    if late:
        yield f"it reads value {late[0]}, which is made later"
    for serial in call.outputs:
        if record.values[serial].producer > call.index:
            yield f"value {serial} is among its results, and another call makes it"
    if isinstance(operator, str):
        return
    schema = schema_of(operator)
    if schema.name != call.operator:
        yield f"what ran is {schema.name}"
        return
    given = {**dict(zip(schema.names, call.arguments, strict=False)), **call.keywords}
    written: list[Any] = []
    for place, name in schema.writes:
        written.append(call.arguments[place] if place < len(call.arguments) else given.get(name))
    storages = {record.values[s].storage for s in references(written)}
    if schema.unmarked is None and storages != set(call.writes):
        yield f"it says that it writes storages {list(call.writes)}, its schema {sorted(storages)}"
    kind = kind_of(schema, call, record.values)
    if kind != call.kind:
        yield f"it says that it is {call.kind}, and it is {kind}"


def _of_value(record: Record, value: Value) -> Iterator[Fault]:
    if (value.producer >= 0) != (value.origin == "call"):
        yield Fault("c", value.producer, "", f"value {value.serial} has an origin and a producer")
    if value.producer >= 0 and value.serial not in record.calls[value.producer].outputs:
        operator = record.calls[value.producer].operator
        said = f"value {value.serial} says that it made it, and it does not"
        yield Fault("c", value.producer, operator, said)
    if value.producer < 0 and value.version:
        yield Fault("c", -1, "", f"value {value.serial} is given, and says that it was written")
    if value.base >= 0 and record.values[value.base].storage != value.storage:
        said = f"value {value.serial} views value {value.base}, which has another storage"
        yield Fault("c", value.producer, "", said)
