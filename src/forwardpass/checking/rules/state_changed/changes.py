"""Changes of a module's state by a pass: what they are of, and what further passes make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from weakref import ReferenceType

import torch
from torch import nn

from forwardpass.checking.examinations import Examination
from forwardpass.keeping.containers import SCALARS, Snapshot
from forwardpass.keeping.states import State
from forwardpass.probing.changes import Change
from forwardpass.recording.arguments import copied, tensors_in
from forwardpass.tensors.distances import relative_distance
from forwardpass.tensors.modules import parts_of
from forwardpass.tensors.trees import flatten

PASSES: Final = 3
"""That `again` makes."""

Held = dict[str, Any]
"""What stood under a name: tensors, copied, and plain Python values, by path."""
_SAME = 1e-5
"""Relative distance below which two passes over the same inputs differ by rounding: ten times what
was measured in f32; see distances.tolerance."""
_OF_MODULES = ("mode", "hooks")
_WHOLE = "the module"


class Alteration(NamedTuple):
    """A sentence of the record's ledger: `buffer`, `bn.running_mean`, `was written`."""

    kind: str
    name: str
    what: str

    @classmethod
    def of(cls, said: str) -> Alteration:
        """The parts of such a sentence."""
        kind, _, rest = said.partition(" ")
        verb = " were " if " were " in rest else " was "
        name, _, what = rest.partition(verb)
        return cls(kind, name.removeprefix("of "), verb.strip() + " " + what)

    def __str__(self) -> str:
        return f"{self.kind} {'of ' if self.kind in _OF_MODULES else ''}{self.name}"

    @property
    def root(self) -> str:
        """The name without what is inside of it: `cache` of `cache[0]`."""
        return self.name.split("[", 1)[0]

    @property
    def is_flag(self) -> bool:
        """Whether only the flag `requires_grad` of a parameter is another."""
        return self.what in ("was frozen", "was unfrozen")

    @property
    def is_in_place(self) -> bool:
        """Whether what stands under the name is the same tensor, with other numbers."""
        return self.what == "was written"

    def owner(self, module: nn.Module) -> tuple[str, nn.Module]:
        """The part of a module that holds what was changed, with its path."""
        parts = dict(parts_of(module, every_name=True))
        path = "" if self.root == _WHOLE else self.root
        if self.kind not in _OF_MODULES:
            path = path.rpartition(".")[0]
        while path not in parts:
            path = path.rpartition(".")[0]
        return path, parts[path]


class Again(NamedTuple):
    """What further passes show of changes.

    Attributes:
        moved: how far outputs are of a second pass, from the state that a first one left.
        goes_on: those that the second pass changes again.
        of_inputs: those that are others after a pass over other inputs.
        made_anew: those that only put there what was there, or what they do in every pass.
    """

    moved: float
    goes_on: list[Alteration]
    of_inputs: list[Alteration]
    made_anew: list[Alteration]


def again(probe: Examination, changes: Sequence[Alteration]) -> Again:
    """Pass twice, the second time from what the first one left, and once over other inputs."""
    probe.passes += 1  # the second, beside the two that are staged
    with probe.staged(contents=True) as (this, args, kwargs):
        before = {change: _held(this.module, change) for change in changes}
        one = {k: t.detach().clone() for k, t in flatten(this.module(*args, **kwargs)).items()}
        after = {change: _held(this.module, change) for change in changes}
        between = State(this.module)
        this.generators.restore()
        args, kwargs = copied((this.arguments, this.keywords))
        two = flatten(this.module(*args, **kwargs))
        roots = {Alteration.of(said).root for said in between.changes()}
        third = {change: _held(this.module, change) for change in changes}
    if any(k not in two or two[k].shape != one[k].shape for k in one):
        moved = float("inf")
    else:
        moved = max((relative_distance(two[k].detach(), one[k]) for k in one), default=0.0)
    elsewhere = _with_others(probe, changes)
    once_more = [change for change in changes if change.root in roots]
    stays = [c for c in changes if after[c] and _is_same(after[c], third[c], exactly=True)]
    of_inputs = [c for c in elsewhere if not _is_same(after[c], elsewhere[c])]
    anew = [c for c in once_more if c in stays and c in elsewhere and c not in of_inputs]
    return Again(
        moved if moved > _SAME else 0.0,
        [c for c in once_more if c not in stays],
        of_inputs,
        [
            c
            for c in changes
            if not c.is_in_place and before[c].keys() == after[c].keys() and before[c]
            and (c in anew or _is_same(before[c], after[c], exactly=True))
        ],
    )  # fmt: skip


def _with_others(probe: Examination, changes: Sequence[Alteration]) -> dict[Alteration, Held]:
    """The state that a pass over other inputs of these shapes leaves; nothing where it raises."""
    others = {
        path: t * 0.5 if t.is_floating_point() else t if t.dtype == torch.bool else t.flip(0)
        for path, t in probe.inputs.items()
        if t.layout is torch.strided and t.dim()
    }
    try:
        with probe.staged(Change(inputs=others), contents=True) as (other, args, kwargs):
            other.module(*args, **kwargs)
            return {change: _held(other.module, change) for change in changes}
    except Exception:  # noqa: BLE001 - a model may refuse what it was not made for
        return {}


def _held(module: nn.Module, change: Alteration) -> Held:
    """What stands under this name now, tensors copied; nothing for modules and what they set."""
    if change.kind in _OF_MODULES:
        return {}
    value: Any = module
    for name in change.root.split("."):
        value = getattr(value, name, None)
    if isinstance(value, nn.Module):
        return {}
    tensors = tensors_in((value,)).items()
    found: Held = {path: tensor.detach().clone() for path, tensor in tensors}
    for way, leaf in Snapshot.of(value).leaves():
        if isinstance(leaf, SCALARS):
            found[way] = leaf
        elif isinstance(leaf, ReferenceType):  # it holds nothing itself
            found[way] = ReferenceType
    return found


def _is_same(one: Held, other: Held, *, exactly: bool = False) -> bool:
    return one.keys() == other.keys() and all(
        _is_alike(one[path], other[path], 0.0 if exactly else _SAME) for path in one
    )


def _is_alike(one: Any, other: Any, allowed: float) -> bool:
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return type(one) is type(other) and one == other
    return (
        one.shape == other.shape
        and one.dtype == other.dtype
        and relative_distance(one, other) <= allowed
    )
