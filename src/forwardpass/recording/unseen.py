"""Unseen: what a record does not know of its pass, each thing in a sentence that names the call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from forwardpass.nouns.calls import Call, Site, Value
from forwardpass.nouns.records import Unseen
from forwardpass.recording.schemas import HIGHER_ORDER
from forwardpass.recording.tracing import Tracer

_PLAIN = "Tensor"


def unseen(
    tracer: Tracer, calls: Sequence[Call], values: Sequence[Value], outputs: Mapping[str, int],
    sites: Sequence[Site],
) -> Iterator[Unseen]:  # fmt: skip
    """The orphans that calls read or that came out, each at the first call that reads it, and the
    operators that call functions which they are given, where these could not be seen."""
    orphans = {value.serial for value in values if value.origin == "unknown"}
    for call in calls:
        where = f"{call.name or call.short} at {sites[call.site]}"
        if call.operator.startswith(HIGHER_ORDER):
            said = (
                f"{where} is {call.operator}: what the functions do that it is given was not seen"
            )
            yield Unseen("inside", call.index, said)
        for serial in call.inputs:
            if serial in orphans:
                orphans.discard(serial)
                said = f"{where} reads {_described(tracer, values[serial])}"
                yield Unseen("origin", call.index, said)
    returned = tracer.modules[0].outputs if tracer.modules else ()
    named = {serial: path for path, serial in outputs.items()}
    for serial in orphans.intersection((*named, *returned)):
        what = f"the output {named[serial]}" if serial in named else "a result of the pass"
        yield Unseen("origin", -1, f"{what} is {_described(tracer, values[serial])}")


def _described(tracer: Tracer, value: Value) -> str:
    kind = tracer.classes[value.serial]
    of_class = "" if kind == _PLAIN else f", a {kind},"
    return f"{value}{of_class} that no call was seen to make"
