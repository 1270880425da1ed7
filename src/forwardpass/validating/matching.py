"""Where two records of what should be the same pass differ in their structure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from forwardpass.nouns.calls import Call, Ref
from forwardpass.nouns.records import Record
from forwardpass.nouns.validations import Fault
from forwardpass.recording.archives import plain

_MOST = 20


def differences(one: Record, other: Record) -> list[Fault]:
    """What differs, call by call, between a record and a new one of the same pass; at most 20."""
    found: list[Fault] = []
    for fault in _differences(one, other):
        found.append(fault)
        if len(found) == _MOST:
            break
    return found


def _differences(one: Record, other: Record) -> Iterator[Fault]:
    for a, b in zip(one.calls, other.calls, strict=False):
        if a.operator != b.operator:
            said = f"recorded is {a.operator}, and now {b.operator} ran"
            yield Fault("a", a.index, a.operator, said)
            return
        for what, before, now in _facts(one, a, other, b):
            if before != now:
                yield Fault("a", a.index, a.operator, f"its {what} was {before}, and is now {now}")
    if len(one.calls) != len(other.calls):
        said = f"recorded are {len(one.calls)} calls, and now {len(other.calls)} ran"
        yield Fault("a", min(len(one.calls), len(other.calls)), "", said)


def _facts(one: Record, a: Call, other: Record, b: Call) -> Iterator[tuple[str, Any, Any]]:
    yield "operands", _shapes(one, a.inputs), _shapes(other, b.inputs)
    yield "results", _shapes(one, a.outputs), _shapes(other, b.outputs)
    yield "producers", _producers(one, a), _producers(other, b)
    yield "arguments", _scalars(a), _scalars(b)


def _shapes(record: Record, serials: tuple[int, ...]) -> list[str]:
    return [str(record.values[serial]) for serial in serials]


def _producers(record: Record, call: Call) -> list[Any]:
    values = [record.values[serial] for serial in call.inputs]
    return [value.producer if value.producer >= 0 else value.name for value in values]


def _scalars(call: Call) -> Any:
    """The arguments with tensors left out: their serials may differ, their producers may not."""
    return _without(plain((call.arguments, call.keywords)))


def _without(value: Any) -> Any:
    if isinstance(value, Ref) or (isinstance(value, dict) and set(value) == {"value"}):
        return "tensor"
    if isinstance(value, list | tuple):
        return [_without(item) for item in value]
    if isinstance(value, dict):
        return {name: _without(item) for name, item in value.items()}
    return value
