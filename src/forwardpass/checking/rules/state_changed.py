"""state-changed: a forward pass computes; it does not change the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]

from forwardpass.checking.learning import ledger
from forwardpass.checking.sources import assigned
from forwardpass.checking.subjects import Subject
from forwardpass.nouns.calls import Call, Site
from forwardpass.nouns.findings import Finding, Severity
from forwardpass.recording.arguments import copied, tensors_in
from forwardpass.recording.states import State
from forwardpass.tensors.distances import relative_distance
from forwardpass.tensors.trees import flatten

MOST_PASSES: Final = 6
"""Three to see whether it goes on changing; three to learn one step on a copy."""

Held = dict[str, torch.Tensor]
_MOST_NAMES = 3
_SAME = 1e-5
"""Relative distance below which two passes over the same inputs differ by rounding."""


class Change(NamedTuple):
    """A sentence of the record's ledger: `buffer`, `bn.running_mean`, `was written`."""

    kind: str
    name: str
    what: str

    @classmethod
    def of(cls, said: str) -> Change:
        """The parts of such a sentence."""
        kind, _, rest = said.partition(" ")
        verb = " were " if " were " in rest else " was "
        name, _, what = rest.partition(verb)
        return cls(kind, name.removeprefix("of "), verb.strip() + " " + what)

    def __str__(self) -> str:
        return f"{self.kind} {'of ' if self.kind in ('mode', 'hooks') else ''}{self.name}"

    @property
    def root(self) -> str:
        """The name without what is inside of it: `cache` of `cache[0]`."""
        return self.name.split("[", 1)[0]


def check(subject: Subject) -> Iterable[Finding]:
    """What the pass changed of the module: by content, as the ledger of the record has it.

    Whether it goes on changing, and whether outputs depend on it, is measured by a second pass that
    starts where the first one ended, and by one over other inputs. In train mode a copy learns one
    step, and hashes of its weights show what changes them.
    """
    changes = [Change.of(said) for said in subject.record.changes]
    weights = [change for change in changes if change.kind == "parameter"]
    statistics = [change for change in changes if _is_statistics(subject, change)]
    others = [c for c in changes if c not in weights and c not in statistics]
    if weights:
        yield _found(
            subject, "error", weights, "a forward pass only reads weights: write them in the "
            "optimizer's step, or under torch.no_grad() outside of forward",
        )  # fmt: skip
    if statistics:
        yield _learning(subject, statistics)
    if others and subject.record.mode == "eval":
        yield from _in_eval(subject, others)
    elif others:
        yield _found(
            subject, "note", others,
            "fine where training is to do it, as for running averages; not in eval mode",
        )  # fmt: skip


def _is_statistics(subject: Subject, change: Change) -> bool:
    """Whether it is the running statistics of a normalisation that trains."""
    path, part = _owner(subject, change)
    trained = any(entry.training for entry in subject.record.of_module(path))
    return change.kind == "buffer" and isinstance(part, _NormBase) and trained


def _owner(subject: Subject, change: Change) -> tuple[str, nn.Module]:
    """The module that holds what was changed, with its path."""
    path = change.root
    while "." in path:
        path = path.rpartition(".")[0]
        try:
            return path, subject.module.get_submodule(path)
        except AttributeError:
            continue
    return "", subject.module


def _found(
    subject: Subject, severity: Severity, changes: Sequence[Change], remedy: str, tail: str = "",
    moved: float = 0.0,
) -> Finding:  # fmt: skip
    """The finding that stands at the call that wrote first, or at the line that assigns."""
    first = changes[0]
    path, part = _owner(subject, first)
    site = None if first.kind in ("parameter", "buffer") else _line(part, first)
    call = None if site else _call(subject, first.name)
    names = [str(change) for change in changes[1:]]
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    also = f" (as were {', '.join(names[:_MOST_NAMES])}{more})" if names else ""
    finding = subject.finding(
        severity, f"{first} {first.what} by the pass{also}{tail}", remedy, call=call,
        module=None if call else path, changed=len(changes), output_moves=moved,
    )  # fmt: skip
    return finding if call else msgspec.structs.replace(finding, site=site or _line(part, first))


def _call(subject: Subject, name: str) -> Call | None:
    """The first call that wrote the tensor of this name, or that keeps statistics in it."""
    record = subject.record
    named = [value for value in record.values if value.name == name and value.origin != "input"]
    storages = {value.storage for value in named}
    serials = {value.serial for value in named}
    wrote = (call for call in record.calls if storages.intersection(call.writes))
    reads = (call for call in record.calls if serials.intersection(call.inputs))
    return next(wrote, None) or next(reads, None)


def _line(part: nn.Module, change: Change) -> Site | None:
    """Where the code of the module sets what was changed, in `forward` or what that may call."""
    name = change.root.rpartition(".")[2]
    own = [m for m in dir(type(part)) if not m.startswith("__") and not hasattr(nn.Module, m)]
    sites = (assigned(type(part), name, method) for method in ["forward", *own])
    return next((site for site in sites if site is not None), None)


# -- in eval mode: does it go on? ----------------------------------------------------------------


def _in_eval(subject: Subject, changes: Sequence[Change]) -> Iterable[Finding]:
    seen = _again(subject, changes)
    changes = [change for change in changes if change not in seen.made_anew]
    if not changes:
        return
    if not (seen.moved or seen.goes_on or seen.of_inputs):
        yield _found(
            subject, "note", changes, "fine for what is made once and kept; made in __init__ and "
            "registered as a buffer it moves with the model", "; a second pass changes no more",
        )  # fmt: skip
        return
    tail = "; a second pass changes it again"
    if seen.of_inputs:
        tail = "; what it becomes depends on the inputs"
    if seen.moved:
        tail = f"; outputs of a second pass differ by {seen.moved:.2%} of their scale"
    yield _found(
        subject, "warning", changes, "return it, or keep it outside of the model: forward must "
        "not depend on which passes came before", tail, seen.moved,
    )  # fmt: skip


class Again(NamedTuple):
    """What further passes show of a change.

    Attributes:
        moved: how far outputs are of a second pass, from the state that a first one left.
        goes_on: whether the second pass changes the same again.
        of_inputs: whether a pass over other inputs leaves another state.
        made_anew: changes that only put there what was there.
    """

    moved: float
    goes_on: bool
    of_inputs: bool
    made_anew: list[Change]


def _again(subject: Subject, changes: Sequence[Change]) -> Again:
    this = subject.this
    subject.passes += 3
    with this.staged(contents=True) as (_, args, kwargs):
        before = {change: _held(this.module, change) for change in changes}
        one = {k: t.detach().clone() for k, t in flatten(this.module(*args, **kwargs)).items()}
        after = {change: _held(this.module, change) for change in changes}
        between = State(this.module)
        this.generators.restore()
        args, kwargs = copied((this.arguments, this.keywords))
        two = flatten(this.module(*args, **kwargs))
        roots = {Change.of(said).root for said in between.changes()}
    if any(k not in two or two[k].shape != one[k].shape for k in one):
        moved = float("inf")
    else:
        moved = max((relative_distance(two[k].detach(), one[k]) for k in one), default=0.0)
    return Again(
        moved if moved > _SAME else 0.0,
        any(change.root in roots for change in changes),
        not all(_is_same(after[c], v) for c, v in _with_others(subject, changes).items()),
        [c for c in changes if before[c] and _is_same(before[c], after[c])],
    )


def _with_others(subject: Subject, changes: Sequence[Change]) -> dict[Change, Held]:
    """The state that a pass over other inputs of these shapes leaves; nothing where it raises."""
    others = {
        path: t * 0.5 if t.is_floating_point() else t if t.dtype == torch.bool else t.flip(0)
        for path, t in subject.inputs.items()
        if t.layout is torch.strided and t.dim()
    }
    other = subject.this.given(others)
    try:
        with other.staged(contents=True) as (_, args, kwargs):
            other.module(*args, **kwargs)
            return {change: _held(other.module, change) for change in changes}
    except Exception:  # noqa: BLE001 - a model may refuse what it was not made for
        return {}


def _held(module: nn.Module, change: Change) -> Held:
    """The tensors under this name, copied as they are now."""
    value: Any = module
    for name in change.root.split("."):
        value = getattr(value, name, None)
    if isinstance(value, nn.Module):
        return {}
    return {path: t.detach().clone() for path, t in tensors_in((value,)).items()}


def _is_same(one: Held, other: Held) -> bool:
    return one.keys() == other.keys() and all(
        one[path].shape == other[path].shape and relative_distance(one[path], other[path]) <= _SAME
        for path in one
    )


# -- in train mode: what learning changes --------------------------------------------------------


def _learning(subject: Subject, statistics: Sequence[Change]) -> Finding:
    """Running statistics that the pass moved, beside what changes weights."""
    path, _ = _owner(subject, statistics[0])
    layers = len({_owner(subject, change)[0] for change in statistics})
    subject.passes += 3
    hashes = ledger(subject.this)
    steps = [
        f"{moment} {'unchanged' if now == before else 'changed'} ({now})"
        for (_, before), (moment, now) in pairwise(hashes)
    ]
    learned = f". Weights of a copy, after {', after '.join(steps)}" if steps else ""
    finding = subject.finding(
        "note",
        f"the pass moved {len(statistics)} buffers of running statistics in {layers} "
        f"normalisation{'s' * (layers > 1)}: it trains{learned}",
        "meant in training: only the optimizer's step learns; call eval() before deploying",
        call=_call(subject, statistics[0].name), module=path, changed=len(statistics),
    )  # fmt: skip
    ledger_of_hashes = {f"weights_{moment.split()[-1]}": now for moment, now in hashes}
    return msgspec.structs.replace(finding, evidence={**finding.evidence, **ledger_of_hashes})
