"""What can be explained, and what the text of an element means.

fc1[0, 7]            the output of a module (of its first call; `fc1:1[…]` of its second)
#12[0, 7]            the output of call 12 of the record
output[0, 3]         an output of the pass
fc1.weight[7, 3]     a parameter, for the way back
x[0, 3], fc1.input[0, 3]     an input of the pass or of a module, for the way back
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from forwardpass.errors import UsageError, nearest
from forwardpass.explaining.views import moves, operands
from forwardpass.nouns.calls import Value
from forwardpass.nouns.records import Record
from forwardpass.recording.recordings import Recording

_TEXT = re.compile(r"^\s*(?P<name>[^\[\]]+?)\s*(?:\[(?P<index>[^\[\]]*)\])?\s*$")
_CALL = re.compile(r"^#(\d+)$")
_TIMES = re.compile(r"^(?P<path>.*):(?P<index>\d+)$")


class GivenError(UsageError):
    """A number that was given has no arithmetic of its own; `what` names it."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} is given, not computed; with --gradient its way back can be explained"
        )
        self.what = what


class Target(NamedTuple):
    """Something whose elements can be explained: its name, and the value that it names."""

    name: str
    value: Value
    made_by: str


def targets(record: Record) -> Iterator[Target]:
    """What can be explained: the modules' outputs, the outputs, and the calls of no module."""
    for path, serial in record.outputs.items():
        yield Target(path, record.values[serial], _maker(record, record.values[serial]))
    for entry in record.modules[1:]:
        if entry.outputs:
            name = entry.path if entry.index == 0 else f"{entry.path}:{entry.index}"
            value = record.values[entry.outputs[0]]
            yield Target(name, value, _maker(record, value))
    for call in record.calls:
        if call.outputs and call.kind not in ("view", "host") and not moves(record, call):
            yield Target(f"#{call.index}", record.values[call.outputs[0]], call.short)


def _maker(record: Record, value: Value) -> str:
    """The operator that computed a value, past the views and copies of it."""
    while call := record.graph.maker(value.serial):
        if not moves(record, call) or len(operands(call)) > 1:
            return call.short
        value = record.values[call.inputs[0]]
    return f"{value.origin} {value.name}".rstrip()


def is_readable(text: str, value: Value) -> None:
    """Raises UsageError for elements that are no real numbers in a plain tensor."""
    said = "sparse or nested" if value.layout != "strided" or value.nested is not None else ""
    said = "complex" if value.dtype.startswith("c") else said
    said = "on the meta device, which has no numbers" if value.device == "meta" else said
    if said:
        raise UsageError(f"{text} is {said} ({value}): dense real tensors are explained")


class Found(NamedTuple):
    """What a text means: an element of a value, as it stood before call `moment`."""

    value: Value
    element: tuple[int, ...]
    moment: int


def found(record: Recording, text: str, *, backward: bool) -> Found:
    """The value that `text` names, the full index into it, and when.

    With `backward` a parameter or an input is meant as well as what a call made. Raises UsageError
    where nothing is called so, or the index does not fit.
    """
    match = _TEXT.match(text)
    if match is None:
        raise UsageError(f"{text!r} is no element; write for example `fc1[0, 7]` or `#12[0, 7]`")
    name = match["name"]
    value, moment = _value(record, name, backward)
    return Found(value, _index(text, value, match["index"]), moment)


def output_element(record: Recording, text: str) -> tuple[str, tuple[int, ...]]:
    """The path of an output and the full index into it. Raises UsageError for anything else."""
    match = _TEXT.match(text)
    name = match["name"] if match else text
    path = name if name in record.outputs else None
    if match and path is None:
        serial = _value(record, name, False)[0].serial
        path = next((p for p, s in record.outputs.items() if s == serial), None)
    if match is None or path is None:
        known = ", ".join(f"{path}[…]" for path in record.outputs)
        raise UsageError(f"loss={text!r} must be an element of an output: {known}")
    return path, _index(text, record.values[record.outputs[path]], match["index"])


def _value(record: Recording, name: str, backward: bool) -> tuple[Value, int]:
    end = len(record.calls)
    call = _CALL.match(name)
    if call:
        number = int(call[1])
        if number >= len(record.calls) or not record.calls[number].outputs:
            raise UsageError(
                f"{name}: the record has calls #0 to #{len(record.calls) - 1}, and the call must "
                "have made a tensor"
            )
        return record.values[record.calls[number].outputs[0]], number + 1
    module, after = (name, 0) if not (m := _TIMES.match(name)) else (m["path"], int(m["index"]))
    for entry in record.modules:
        if entry.path == module and entry.index == after and entry.outputs and entry.path:
            return record.values[entry.outputs[0]], entry.stop
    if name in record.outputs:
        return record.values[record.outputs[name]], end
    if backward:
        first = next((p.name for p in record.parameters if name in p.aliases), name)
        for value in record.values:
            if value.name == first and value.origin in ("parameter", "input"):
                return value, 0
        parent, _, last = name.rpartition(".")
        for entry in record.modules:
            if last == "input" and entry.path == parent and entry.inputs:
                return record.values[entry.inputs[0]], entry.first
        if any(p.name == first and not p.buffer for p in record.parameters):
            raise UsageError(f"nothing in the pass reads {name}: its gradient is 0")
    known = [target.name for target in targets(record) if not target.name.startswith("#")]
    if backward:
        known += [value.name for value in record.values if value.name]
    elif any(value.name == name for value in record.values):
        raise GivenError(name)
    raise UsageError(f"nothing in the record is called {name!r}; {_near(name, known)}")


def _near(name: str, known: list[str]) -> str:
    text = nearest(name, known)
    return text if len(text) < 400 else f"{text[:400]} …"


def _index(text: str, value: Value, index: str | None) -> tuple[int, ...]:
    shape = value.shape
    axes = " ".join(map(str, shape))
    if not index:
        if value.elements == 1:
            return (0,) * len(shape)
        raise UsageError(f"{text!r} names a tensor [{axes}]; say which element: {text.strip()}[…]")
    parts = [part.strip() for part in index.split(",")]
    if not all(re.fullmatch(r"-?\d+", part) for part in parts):
        raise UsageError(f"{text!r}: an index is whole numbers with commas, such as [0, 7]")
    numbers = [int(part) for part in parts]
    if len(numbers) != len(shape):
        raise UsageError(f"{text!r} has {len(numbers)} numbers, and [{axes}] has {len(shape)} axes")
    for number, size in zip(numbers, shape, strict=True):
        if not -size <= number < size:
            raise UsageError(f"{text!r} lies outside of [{axes}]; indexes begin at 0")
    return tuple(n if n >= 0 else n + s for n, s in zip(numbers, shape, strict=True))
