"""unused: parameters that no output depends on, and results that nobody uses."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

import msgspec
import torch
from torch import nn

from forwardpass.checking.examinations import Examination, Inapplicable
from forwardpass.checking.rules.unused.names import within_reach
from forwardpass.checking.rules.unused.origins import made_at
from forwardpass.errors import PassError
from forwardpass.nouns.calls import Call
from forwardpass.nouns.findings import Finding, Severity
from forwardpass.nouns.records import Need, Parameter, Record
from forwardpass.operators import kinds
from forwardpass.probing.changes import Change
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.modules import held_by
from forwardpass.tensors.trees import flatten

NEEDS: Final[tuple[Need, ...]] = ("edges",)
MOST_PASSES: Final = 2
"""One in the other mode, one with parameters moved that count only times 0."""

_WORTHWHILE = 0.01
"""Share of the pass's work from which a result that nobody uses is worth a word."""
_WASTEFUL = 0.1
"""Share from which work for nothing is a warning; a pooler beside a transformer is far below."""
_MOST_NAMES = 3
"""In a sentence; how many there are is said beside them."""


def check(probe: Examination) -> Iterable[Finding]:
    """What the outputs do not depend on, by the edges of the record.

    A parameter that only dead calls read is computed with in vain. One that no call reads is
    unused where other inputs cannot change that: no code that forward leads to names it; or no
    value decides what runs, and the other mode does not read it either. Where arguments of forward
    could be others, absent ones or options, that is a note. So is one that reaches the outputs only
    times the number 0, which is tried: moved, it moves no output. Results that lead to no output
    are a note where they cost, and the user's code asks for them.
    """
    record = probe.record
    live = record.graph.leading_to(record.ends())
    used = _used(record, live)
    read = {name for call in record.calls for name in call.parameters}
    own = [p for p in record.parameters if not p.buffer and p.elements]
    dead = [p for p in own if p.name not in used and p.name in read]
    unread = [p for p in own if p.name not in used and p.name not in read]
    calls = [call for call in record.calls if call.index not in live]
    if dead:
        yield _in_vain(probe, dead, calls)
    if not dead:
        yield from _results(probe, calls)
    annulled = {call.index for call in record.calls if _is_times_zero(call)}
    if annulled:
        by_more = _used(record, record.graph.leading_to(record.ends(), annulled))
        yield from _times_zero(probe, [p for p in own if p.name in used - by_more])
    if unread:
        yield from _never_read(probe, unread)


def _used(record: Record, live: Iterable[int]) -> set[str]:
    """The names of what these calls read, or the outputs are."""
    read = {name for index in live for name in record.calls[index].parameters}
    return read | {record.values[serial].name for serial in record.outputs.values()}


def _names(parameters: Sequence[Parameter]) -> str:
    shown = ", ".join(p.name for p in parameters[:_MOST_NAMES])
    more = len(parameters) - _MOST_NAMES
    return f"{shown} and {more:,} more" if more > 0 else shown


def _numbers(parameters: Sequence[Parameter]) -> str:
    total = sum(p.elements for p in parameters)
    return f"{total:,} number{'s' * (total > 1)}"


# -- computed with in vain -----------------------------------------------------------------------


def _in_vain(probe: Examination, dead: Sequence[Parameter], calls: Sequence[Call]) -> Finding:
    names = {p.name for p in dead}
    first = next(call for call in calls if names.intersection(call.parameters))
    share = _share(probe.record, calls)
    return probe.finding(
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


# -- times zero ----------------------------------------------------------------------------------


def _is_times_zero(call: Call) -> bool:
    """Whether a call multiplies by the number 0; one that is in a tensor may learn, or be a state
    that begins there."""
    numbers = [a for a in call.arguments if isinstance(a, int | float)]
    return kinds.bare(call.short) == "mul" and any(n == 0 for n in numbers)


def _times_zero(probe: Examination, suspects: Sequence[Parameter]) -> Iterator[Finding]:
    """Those parameters without which no output moves, in either mode."""
    if not suspects or _goes_by_values(probe.record) or _is_given_zero(probe):
        return
    twin = _in_the_other_mode(probe)
    if twin is None:
        return
    annulled = {call.index for call in twin.calls if _is_times_zero(call)}
    elsewhere = _used(twin, twin.graph.leading_to(twin.ends(), annulled))
    suspects = [p for p in suspects if p.name not in elsewhere]
    if not suspects or _moves(probe, suspects):
        return
    record, names = probe.record, {p.name for p in suspects}
    first = next(
        call
        for call in record.calls
        if _is_times_zero(call)
        and names.intersection(_used(record, record.graph.leading_to([call.index])))
    )
    yield probe.finding(
        "note",
        f"{_names(suspects)} ({_numbers(suspects)}) count only times 0: however far they move, no "
        "output does",
        "leave out what is multiplied by 0, or give it a weight; if it is there so that each "
        "parameter has a gradient, say so in a comment",
        call=first, parameters=len(suspects), elements=sum(p.elements for p in suspects),
    )  # fmt: skip


def _moves(probe: Examination, suspects: Sequence[Parameter]) -> bool:
    """Whether an output moves where these parameters do. Takes one pass."""
    held, drawn = held_by(probe.module), torch.Generator().manual_seed(0)
    with probe.staged(contents=True) as (_, args, kwargs):
        with torch.no_grad():
            for parameter in suspects:
                tensor = held[parameter.name]
                noise = torch.randn(tensor.shape, generator=drawn).to(tensor)
                tensor.add_(noise * (1 + tensor.abs().mean()))
        came = flatten(probe.module(*args, **kwargs))
        before = probe.record.returned
        return any(not torch.equal(came[path], before[path]) for path in before)


# -- never read ----------------------------------------------------------------------------------


def _never_read(probe: Examination, unread: Sequence[Parameter]) -> Iterator[Finding]:
    """Parameters that no call of this pass reads, and none of another would."""
    by_values, otherwise = _goes_by_values(probe.record), _otherwise(probe)
    if by_values or otherwise:  # then what the code says decides, and not what this pass did
        unreachable = _out_of_reach(probe, unread)
        if unreachable:
            yield _unread(probe, unreachable, "warning", ", and no code of forward names it")
        unread = [p for p in unread if p not in unreachable]
    if unread and by_values:
        raise Inapplicable(
            f"no call reads {_names(unread)}; for other values of the inputs one may"
        )
    if unread and not _the_other_mode_reads(probe, unread):
        how = f"; with {otherwise}, one may" if otherwise else ", in either mode"
        yield _unread(probe, unread, "note" if otherwise else "warning", how)


def _unread(
    probe: Examination, unread: Sequence[Parameter], severity: Severity, how: str
) -> Finding:
    path, _, name = unread[0].name.rpartition(".")
    while path and _is_whole(probe, path, unread):
        path, _, name = path.rpartition(".")
    finding = probe.finding(
        severity, f"no call reads {_names(unread)} ({_numbers(unread)}){how}",
        "remove what is not needed: it is stored, loaded and moved, and distributed training waits "
        "for its gradient",
        module=unread[0].name.rpartition(".")[0], parameters=len(unread),
        elements=sum(p.elements for p in unread),
    )  # fmt: skip
    return msgspec.structs.replace(finding, site=made_at(probe.parts, path, name))


def _out_of_reach(probe: Examination, unread: Sequence[Parameter]) -> list[Parameter]:
    reached = within_reach(probe.module)
    held = held_by(probe.module)
    if reached is None:
        return []
    return [p for p in unread if p.name in held and id(held[p.name]) not in reached]


def _is_whole(probe: Examination, path: str, unread: Sequence[Parameter]) -> bool:
    """Whether all that a module holds is unread: then it is the module that nobody calls."""
    names = {p.name for p in unread}
    inside = [p for p in probe.record.parameters if p.name.startswith(f"{path}.")]
    return bool(inside) and all(p.buffer or p.name in names for p in inside)


def _the_other_mode_reads(probe: Examination, unread: Sequence[Parameter]) -> bool:
    """Whether it reads any of them, or cannot be tried."""
    twin = _in_the_other_mode(probe)
    if twin is None:
        return True
    read = {name for call in twin.calls for name in call.parameters}
    return bool(read.intersection(p.name for p in unread))


def _in_the_other_mode(probe: Examination) -> Record | None:
    mode = "eval" if probe.record.mode == "train" else "train"
    try:
        return probe.recording(Change(mode=mode), values=False)
    except PassError:
        return None


def _goes_by_values(record: Recording) -> bool:
    """Whether what runs may depend on the numbers that went in."""
    return any(
        call.kind == "host"
        or torch.Tag.dynamic_output_shape in getattr(record.operators[call.index], "tags", ())
        for call in record.calls
    )


def _otherwise(probe: Examination) -> str:
    """Arguments with which forward may go another way: one that this pass was not given, or an
    option that it was; "" where there are none."""
    bound = _bound(probe)
    if bound is None:
        return "other arguments"
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return "other arguments"
        if name not in bound.arguments:
            return f"{name}, which was not given"
    options = (name for name, given in bound.arguments.items() if _is_option(given))
    return next((f"another {name}" for name in options), "")


def _is_option(given: Any) -> bool:
    """Whether code may go by what is given without a look at the numbers in a tensor: by a text, a
    flag, a count, a None, or the keys of a dict."""
    if isinstance(given, list | tuple):
        return any(map(_is_option, cast("Iterable[Any]", given)))
    return not isinstance(given, torch.Tensor)


def _is_given_zero(probe: Examination) -> bool:
    """Whether a 0 may have come from the caller."""
    bound = _bound(probe)
    if bound is None:
        return True
    bound.apply_defaults()
    return any(type(a) in (int, float) and a == 0 for a in bound.arguments.values())


def _bound(probe: Examination) -> inspect.BoundArguments | None:
    this = probe.this
    try:
        return inspect.signature(this.module.forward).bind(*this.arguments, **this.keywords)
    except (TypeError, ValueError):
        return None


# -- results ------------------------------------------------------------------------------------


def _results(probe: Examination, calls: Sequence[Call]) -> Iterator[Finding]:
    record = probe.record
    dead = {call.index for call in calls}
    # A call of several results, of which some are used, is no waste: the states of an LSTM.
    used = {_written(record, probe.parts, call) for call in record.calls if call.index not in dead}
    costly = [
        call
        for call in calls
        if call.kind == "compute"
        and _written(record, probe.parts, call) not in used
        and not _is_made_up(record, call)
    ]
    share = _share(record, costly)
    if not costly or share < _WORTHWHILE:
        return
    first = max(costly, key=lambda call: (call.macs or 0, call.elements))
    yield probe.finding(
        "note",
        f"nobody uses what {first.name or first.short} makes; {len(costly)} such call"
        f"{'s are' if len(costly) > 1 else ' is'} {share:.1%} of the pass's work",
        "leave it out, or return it", call=first, calls=len(costly), share=share,
    )  # fmt: skip


def _is_made_up(record: Record, call: Call) -> bool:
    """Whether it makes numbers of nothing, such as zeros: there is no work in that."""
    return not call.inputs or kinds.reads_shape(call.short)


def _written(record: Record, parts: Mapping[str, nn.Module], call: Call) -> tuple[int, int]:
    """What the user's code asks for at a call, as a site and a module call: an operator; or, at
    site -1, the outermost of PyTorch's layers around it, whose own lines the user cannot change."""
    site, layer, around = call.site, call.module, call.module
    while around >= 0 and _is_pytorchs(parts.get(record.modules[around].path)):
        site, layer, around = -1, around, record.modules[around].parent
    return site, layer


def _is_pytorchs(part: nn.Module | None) -> bool:
    """Whether the forward of a module is code of PyTorch."""
    module = getattr(getattr(part, "forward", None), "__module__", None) or ""
    return module.startswith(("torch.nn.", "torch.ao."))
