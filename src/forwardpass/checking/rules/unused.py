"""unused: parameters that no output depends on, and results that nobody uses."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
import torch

from forwardpass.checking.reaching import leading_to, makers
from forwardpass.checking.sources import assigned
from forwardpass.checking.subjects import Subject
from forwardpass.errors import PassError
from forwardpass.nouns.calls import Call, Site
from forwardpass.nouns.findings import Finding
from forwardpass.nouns.records import Parameter, Record

MOST_PASSES: Final = 1

_WORTHWHILE = 0.01
"""Share of the pass's work from which a result that nobody uses is worth a word."""
_WASTEFUL = 0.1
"""Share from which work for nothing is a warning; a pooler beside a transformer is far below."""
_MOST_NAMES = 3


def check(subject: Subject) -> Iterable[Finding]:
    """What the outputs do not depend on, by the edges of the record.

    A parameter that only dead calls read is computed with in vain. One that no call reads is
    unused where other inputs cannot change that: no value decides what runs, and the other mode
    does not read it either; where arguments of forward were left out it is a note. Results that
    lead to no output are a note where they cost.
    """
    record = subject.record
    live = leading_to(record, _ends(record))
    used = {name for index in live for name in record.calls[index].parameters}
    used |= {record.values[serial].name for serial in record.outputs.values()}
    read = {name for call in record.calls for name in call.parameters}
    own = [p for p in record.parameters if not p.buffer and p.elements]
    dead = [p for p in own if p.name not in used and p.name in read]
    unread = [p for p in own if p.name not in used and p.name not in read]
    calls = [call for call in record.calls if call.index not in live]
    if dead:
        yield _in_vain(subject, dead, calls)
    if unread:
        yield from _never_read(subject, unread)
    if not dead:
        yield from _results(subject, calls)


def _ends(record: Record) -> Iterator[int]:
    """The calls that have an effect beside their results, and those that made the outputs."""
    yield from makers(record, record.outputs.values())
    outside = {v.storage for v in record.values if v.producer < 0 and v.storage >= 0}
    for call in record.calls:
        for_effect = call.kind in ("host", "random") or not call.outputs
        if for_effect or outside.intersection(call.writes):
            yield call.index
    for entry in record.modules[:1]:  # what the pass returned inside of other objects: caches
        yield from makers(record, entry.outputs)


def _names(parameters: Sequence[Parameter]) -> str:
    shown = ", ".join(p.name for p in parameters[:_MOST_NAMES])
    more = len(parameters) - _MOST_NAMES
    return f"{shown} and {more:,} more" if more > 0 else shown


def _numbers(parameters: Sequence[Parameter]) -> str:
    total = sum(p.elements for p in parameters)
    return f"{total:,} number{'s' * (total > 1)}"


# -- computed with in vain -----------------------------------------------------------------------


def _in_vain(subject: Subject, dead: Sequence[Parameter], calls: Sequence[Call]) -> Finding:
    names = {p.name for p in dead}
    first = next(call for call in calls if names.intersection(call.parameters))
    share = _share(subject.record, calls)
    return subject.finding(
        "warning" if share >= _WASTEFUL else "note",
        f"no output depends on {_names(dead)} ({_numbers(dead)}): what is computed with "
        f"{'it' if len(dead) == 1 else 'them'} is thrown away ({share:.1%} of the pass's work)",
        "return what is made of it, or leave the layer out",
        call=first, parameters=len(dead), elements=sum(p.elements for p in dead), share=share,
    )  # fmt: skip


def _share(record: Record, calls: Iterable[Call]) -> float:
    """The larger of the shares that these calls have of the macs and of the elements."""
    calls = list(calls)
    macs = sum(call.macs or 0 for call in record.calls)
    elements = sum(call.elements for call in record.calls)
    return max(
        sum(call.macs or 0 for call in calls) / macs if macs else 0.0,
        sum(call.elements for call in calls) / elements if elements else 0.0,
    )


# -- never read ----------------------------------------------------------------------------------


def _never_read(subject: Subject, unread: Sequence[Parameter]) -> Iterator[Finding]:
    """Parameters that no call of this pass reads, and none of another would."""
    if _others_may_read(subject, unread):
        return
    left = _left_out(subject)
    path, _, name = unread[0].name.rpartition(".")
    while path and _is_whole(subject, path, unread):
        path, _, name = path.rpartition(".")
    site = _line(subject, path, name)
    finding = subject.finding(
        "note" if left else "warning",
        f"no call reads {_names(unread)} ({_numbers(unread)})"
        + (f"; with {left}, which was not given, one may" if left else ", in either mode"),
        "remove what is not needed: it is stored, loaded and moved, and distributed training waits "
        "for its gradient",
        module=unread[0].name.rpartition(".")[0], parameters=len(unread),
        elements=sum(p.elements for p in unread),
    )  # fmt: skip
    yield msgspec.structs.replace(finding, site=site)


def _is_whole(subject: Subject, path: str, unread: Sequence[Parameter]) -> bool:
    """Whether all that a module holds is unread: then it is the module that nobody calls."""
    names = {p.name for p in unread}
    inside = [p for p in subject.record.parameters if p.name.startswith(f"{path}.")]
    return bool(inside) and all(p.buffer or p.name in names for p in inside)


def _line(subject: Subject, path: str, name: str) -> Site | None:
    """Where the module that holds it is made; what containers hold, they were given."""
    site = assigned(type(subject.parts[path]), name, "__init__")
    while site is None and path:
        path, _, name = path.rpartition(".")
        site = assigned(type(subject.parts[path]), name, "__init__")
    return site


def _others_may_read(subject: Subject, unread: Sequence[Parameter]) -> bool:
    """Whether other values of the inputs, or the other mode, might read them."""
    record = subject.record
    if any(call.kind == "host" or _is_of_values(record, call) for call in record.calls):
        return True
    try:
        twin = subject.variant(mode="eval" if record.mode == "train" else "train", values=False)
    except PassError:
        return True
    read = {name for call in twin.calls for name in call.parameters}
    return bool(read.intersection(p.name for p in unread))


def _is_of_values(record: Record, call: Call) -> bool:
    operator = record.live.operators[call.index]
    return torch.Tag.dynamic_output_shape in getattr(operator, "tags", ())


def _left_out(subject: Subject) -> str:
    """An argument of forward that this pass was not given, "" where all were."""
    this = subject.this
    try:
        call = inspect.signature(this.module.forward)
        bound = call.bind(*this.arguments, **this.keywords)
    except (TypeError, ValueError):
        return "other arguments"
    for name, parameter in call.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return "other arguments"
        if name not in bound.arguments:
            return name
    return ""


# -- results ------------------------------------------------------------------------------------


def _results(subject: Subject, calls: Sequence[Call]) -> Iterator[Finding]:
    record = subject.record
    dead = {call.index for call in calls}
    # A call of several results, of which some are used, is no waste: the states of an LSTM.
    used = {(call.site, call.module) for call in record.calls if call.index not in dead}
    costly = [
        call
        for call in calls
        if call.kind == "compute"
        and (call.site, call.module) not in used
        and not _is_made_up(record, call)
    ]
    share = _share(record, costly)
    if not costly or share < _WORTHWHILE:
        return
    first = max(costly, key=lambda call: (call.macs or 0, call.elements))
    yield subject.finding(
        "note",
        f"nobody uses what {first.name or first.short} makes; {len(costly)} such call"
        f"{'s are' if len(costly) > 1 else ' is'} {share:.1%} of the pass's work",
        "leave it out, or return it", call=first, calls=len(costly), share=share,
    )  # fmt: skip


def _is_made_up(record: Record, call: Call) -> bool:
    """Whether it makes numbers of nothing, such as zeros: there is no work in that."""
    template = call.short.startswith("new_") or call.short.endswith("_like")
    return not call.inputs or template
