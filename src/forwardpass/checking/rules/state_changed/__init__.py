"""state-changed: a forward pass computes; it changes neither the model nor what it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]

from forwardpass.checking.examinations import Examination
from forwardpass.checking.rules.state_changed.changes import Again, Alteration, again
from forwardpass.checking.rules.state_changed.learning import ledger
from forwardpass.checking.rules.state_changed.overwriting import Overwritten, overwritten
from forwardpass.checking.rules.state_changed.watchpoints import Watchpoint
from forwardpass.checking.words import share
from forwardpass.keeping.containers import Snapshot, differs
from forwardpass.keeping.states import place_of
from forwardpass.nouns.calls import Call, Site
from forwardpass.nouns.findings import Finding, Severity
from forwardpass.nouns.records import Need

NEEDS: Final[tuple[Need, ...]] = ("numbers",)
MOST_PASSES: Final = 8
"""Three to see whether it goes on changing; three to learn one step on a copy; one to see the line
that changes the module, one for what becomes of the inputs."""

_MOST_NAMES = 3
"""In a sentence; how many there are is said beside them."""


def check(probe: Examination) -> Iterable[Finding]:
    """What the pass changed of the module, and of its inputs: by content.

    Whether it goes on changing, and whether outputs depend on it, is measured by a second pass that
    starts where the first one ended, and by one over other inputs. In train mode a copy learns one
    step, and hashes of its weights show what changes them.
    """
    for one in overwritten(probe):
        yield _given(probe, one)
    changes = [Alteration.of(said) for said in probe.record.changes]
    flags = [change for change in changes if change.is_flag]
    weights = [c for c in changes if c.kind == "parameter" and c not in flags]
    statistics = [change for change in changes if _is_statistics(probe, change)]
    others = [c for c in changes if c not in (*flags, *weights, *statistics)]
    if weights:
        yield _found(
            probe, "error", weights, "a forward pass only reads weights: write them in the "
            "optimizer's step, or under torch.no_grad() outside of forward",
        )  # fmt: skip
    if flags:
        yield _found(
            probe, "warning", flags, "say which weights learn in __init__, or where training is "
            "set up: who sets requires_grad before a pass finds it changed after",
        )  # fmt: skip
    if statistics:
        yield _learning(probe, statistics)
    if not others:
        return
    seen = again(probe, others)
    others = [change for change in others if change not in seen.made_anew]
    trained = [change for change in others if _trains(probe, change)]
    evaluated = [change for change in others if change not in trained]
    if evaluated:
        yield _in_eval(probe, evaluated, seen)
    if trained:
        yield _found(
            probe, "note", trained,
            "fine where training is to do it, as for running averages; not in eval mode",
        )  # fmt: skip


def _given(probe: Examination, one: Overwritten) -> Finding:
    """An input that the caller finds changed."""
    dtype = probe.inputs[one.path].dtype
    by = f", by up to {share(one.moved)}" if dtype.is_floating_point or dtype.is_complex else ""
    came = "; it comes back as an output" if one.returned else ""
    whole = probe.inputs[one.path].numel()
    return probe.finding(
        "note" if one.returned else "warning",
        f"input {one.path} was written by the pass, which changes {one.numbers:,} of its {whole:,} "
        f"numbers{by}{came}",
        "fine for a function that works in place; the caller's tensor is its result"
        if one.returned
        else "compute a new tensor, or write to a clone (a first layer takes inplace=False): the "
        "caller may use its own again",
        call=one.call, changed=one.numbers, moved=one.moved,
    )  # fmt: skip


def _trains(probe: Examination, change: Alteration) -> bool:
    """Whether what holds it was in train mode when it was called; of a mode, the whole pass."""
    path = "" if change.kind == "mode" else change.owner(probe.module)[0]
    while path and not any(probe.record.of_module(path)):
        path = path.rpartition(".")[0]
    return any(entry.training for entry in probe.record.of_module(path))


def _is_statistics(probe: Examination, change: Alteration) -> bool:
    """Whether it is the running statistics of a normalisation that trains. By PyTorch's class: the
    count of batches among them is a buffer that no operator of the normalisation reads."""
    path, part = change.owner(probe.module)
    trained = any(entry.training for entry in probe.record.of_module(path))
    return change.kind == "buffer" and isinstance(part, _NormBase) and trained


def _found(
    probe: Examination, severity: Severity, changes: Sequence[Alteration], remedy: str,
    tail: str = "", moved: float = 0.0,
) -> Finding:  # fmt: skip
    """The finding that stands at the call that wrote first, or at the line that assigns."""
    first = changes[0]
    path, _ = first.owner(probe.module)
    site = None if first.is_in_place else _line(probe, first)
    call = None if site else _call(probe, first.name)
    names = [str(change) for change in changes[1:]]
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    also = f" (as were {', '.join(names[:_MOST_NAMES])}{more})" if names else ""
    finding = probe.finding(
        severity, f"{first} {first.what} by the pass{also}{tail}", remedy, call=call,
        module=None if call else path, changed=len(changes), output_moves=moved,
    )  # fmt: skip
    return finding if call else msgspec.structs.replace(finding, site=site)


def _call(probe: Examination, name: str) -> Call | None:
    """The first call that wrote the tensor of this name, or that keeps statistics in it."""
    record = probe.record
    named = [value for value in record.values if value.name == name and value.origin != "input"]
    storages = {value.storage for value in named}
    serials = {value.serial for value in named}
    wrote = (call for call in record.calls if storages.intersection(call.writes))
    reads = (call for call in record.calls if serials.intersection(call.inputs))
    return next(wrote, None) or next(reads, None)


def _line(probe: Examination, change: Alteration) -> Site | None:
    """The line that makes the change, by one more pass."""
    with probe.staged(contents=True) as (_, args, kwargs):
        watchpoint = Watchpoint(_changes(*change.owner(probe.module), change))
        with watchpoint:
            probe.module(*args, **kwargs)
    return watchpoint.site


def _changes(path: str, part: nn.Module, change: Alteration) -> Callable[[], bool]:
    """A function that says whether this is no longer as it is now."""
    if change.kind == "mode":
        training = part.training
        return lambda: part.training != training
    if change.kind == "hooks":
        before = _hooks(part)
        return lambda: _hooks(part) != before
    name = change.root.removeprefix(f"{path}.").partition(".")[0]
    now = getattr(part, name, None)
    if change.is_flag and isinstance(now, torch.Tensor):
        learns = now.requires_grad
        return lambda: now.requires_grad != learns
    if change.what == "was given other data" and isinstance(now, torch.Tensor):
        alias = now.detach()  # so that its memory is not given anew
        place = place_of(alias)
        return lambda: place_of(now) != place
    held = Snapshot.of(now)
    return lambda: differs(getattr(part, name, None), held)


def _hooks(part: nn.Module) -> dict[str, list[Any]]:
    stores = ((k, v) for k, v in vars(part).items() if k.endswith("_hooks"))
    return {name: list(store) for name, store in stores}


# -- does it go on? ------------------------------------------------------------------------------


def _in_eval(probe: Examination, changes: Sequence[Alteration], seen: Again) -> Finding:
    goes_on = any(change in seen.goes_on for change in changes)
    of_inputs = any(change in seen.of_inputs for change in changes)
    modes = any(change.kind == "mode" for change in changes)
    if not (seen.moved or goes_on or of_inputs or modes):
        return _found(
            probe, "note", changes, "fine for what is made once and kept; made in __init__ and "
            "registered as a buffer it moves with the model", "; a second pass changes no more",
        )  # fmt: skip
    tail = "; a second pass changes it again" if goes_on else "; later passes run in it"
    if of_inputs:
        tail = "; what it becomes depends on the inputs"
    if seen.moved:
        tail = f"; outputs of a second pass differ by {share(seen.moved, 'their scale')}"
    return _found(
        probe, "warning", changes, "return it, or keep it outside of the model: forward must "
        "not depend on which passes came before", tail, seen.moved,
    )  # fmt: skip


# -- in train mode: what learning changes --------------------------------------------------------


def _learning(probe: Examination, statistics: Sequence[Alteration]) -> Finding:
    """Running statistics that the pass moved, beside what changes weights."""
    path, _ = statistics[0].owner(probe.module)
    layers = len({change.owner(probe.module)[0] for change in statistics})
    probe.passes += 3
    hashes = ledger(probe.this)
    steps = [
        f"{moment} {'unchanged' if now == before else 'changed'} ({now})"
        for (_, before), (moment, now) in pairwise(hashes)
    ]
    learned = f". Weights of a copy, after {', after '.join(steps)}" if steps else ""
    finding = probe.finding(
        "note",
        f"the pass moved {len(statistics)} buffers of running statistics in {layers} "
        f"normalisation{'s' * (layers > 1)}: it trains{learned}",
        "meant in training: only the optimizer's step learns; call eval() before deploying",
        call=_call(probe, statistics[0].name), module=path, changed=len(statistics),
    )  # fmt: skip
    ledger_of_hashes = {f"weights_{moment.split()[-1]}": now for moment, now in hashes}
    return msgspec.structs.replace(finding, evidence={**finding.evidence, **ledger_of_hashes})
