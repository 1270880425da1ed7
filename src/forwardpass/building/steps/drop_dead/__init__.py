"""drop_dead(outputs): parts of which no output needs anything are no longer computed.

What an output needs is read from the record of a pass: the calls that lead to it, and those that
do something beside their results, such as to draw or to write what the module holds. Where the
signature declares outputs, or `outputs` names them, only those leave, and only they need anything.

A part that is dropped is replaced by a stand-in, which gives zeros of the shapes that it gave, so
that the code around it goes on as before. How large they are follows from what the part is given:
that is told from passes of several sizes. Its parameters are gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from functools import cached_property
from typing import Any

import torch
from torch import nn

from forwardpass.building.steps._parts import as_deployed, chosen, has_hooks, put
from forwardpass.building.steps._wording import counted, left, listed
from forwardpass.building.steps.drop_dead.sizings import Sizings
from forwardpass.building.steps.drop_dead.standing_in import Seen, StandIn, Untold, seen, template
from forwardpass.building.workpieces import Workpiece
from forwardpass.errors import BuildError, PassError, UsageError, nearest, said
from forwardpass.nouns.calls import Call, ModuleCall
from forwardpass.nouns.records import Record
from forwardpass.tensors.modules import parameters_of
from forwardpass.tensors.trees import flatten

FAR = 1e-5


class _Needed:
    """A hook: only outputs that leave do."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = tuple(names)

    def __call__(self, module: nn.Module, args: Any, outputs: Any) -> dict[str, torch.Tensor]:
        found = flatten(outputs)
        return {name: found[name] for name in self.names}


def apply(piece: Workpiece, outputs: str = "") -> str:
    """Drop the selected parts that no output needs. Raises BuildError where there is none,
    UsageError for outputs that are not there."""
    record = as_deployed(piece)
    if outputs:
        piece.declared = _named(piece, outputs, record)
    names = [name for name in piece.declared if name in record.outputs]
    needed = names if len(names) == len(piece.declared) and names else list(record.outputs)
    ends = record.ends(needed if len(needed) < len(record.outputs) else None)
    dropping = _Dropping(piece, record, record.graph.leading_to(ends))
    before = sum(parameter.numel() for _, parameter in parameters_of(piece.module))
    dropping.descend(0)
    lines = dropping.lines()
    if not dropping.dropped:
        leaving = ""
        if not piece.declared and len(record.outputs) > 1:
            leaving = (
                f"; all outputs leave ({listed(list(record.outputs))}), since the signature "
                f"declares none: name those that are needed, as in drop_dead({needed[0]})"
            )
        why = "outputs that leave need every one of them"
        if dropping.reasons:
            why = f"left: {left(dropping.reasons)}"
        raise BuildError(f"{piece.step}: no chosen part can be dropped; {why}{lines}{leaving}")
    if len(needed) < len(record.outputs):
        piece.module.register_forward_hook(_Needed(needed))
    gone = before - sum(parameter.numel() for _, parameter in parameters_of(piece.module))
    stay = f"; left: {left(dropping.reasons)}" if dropping.reasons else ""
    return (
        f"{listed(dropping.dropped)} dropped ({gone:,} numbers in parameters, "
        f"{dropping.share:.1%} of the multiply-accumulates){stay}{lines}"
    )


def _named(piece: Workpiece, outputs: str, record: Record) -> tuple[str, ...]:
    """The outputs that the user names, with commas or spaces between."""
    names = tuple(outputs.replace(",", " ").split())
    for name in names:
        if name not in record.outputs:
            raise UsageError(
                f"{piece.step}: the model has no output {name!r}; {nearest(name, record.outputs)}"
            )
    for name in piece.declared:
        if name not in names:
            raise UsageError(
                f"{piece.step}: the signature declares {name!r} as well; name it, too, or leave "
                "the names out"
            )
    return names


class _Dropping:
    """What is dropped of a module, from the largest part that no output needs down."""

    def __init__(self, piece: Workpiece, record: Record, live: Collection[int]) -> None:
        self.piece, self.record, self.live = piece, record, live
        self.chosen = chosen(piece)
        self.dropped: list[str] = []
        self.reasons: dict[str, list[str]] = defaultdict(list)
        self._done: set[str] = set()
        self._gone: set[int] = set()
        self._children: dict[int, list[int]] = defaultdict(list)
        for index, entry in enumerate(record.modules):
            self._children[entry.parent].append(index)

    def descend(self, around: int) -> None:
        """Drop what can be of what a module call calls."""
        for index in self._children[around]:
            entry = self.record.modules[index]
            if not self._is_dead(entry):
                self.descend(index)
            elif entry.path not in self._done and self._computes(entry):
                self._done.add(entry.path)
                if not self._dropped(entry.path):
                    self.descend(index)

    def _dropped(self, path: str) -> bool:
        """Drop a part, or say why it stays."""
        part, entries = self.chosen.get(path), list(self.record.of_module(path))
        if part is None:
            return False
        try:
            if not all(map(self._is_dead, entries)):
                raise Untold("results are needed in another call")
            if has_hooks(part):
                raise Untold("hooks see what goes through")
            self._replace(part)
        except Untold as reason:
            self.reasons[str(reason)].append(path)
            return False
        self.dropped.append(path)
        self._gone.update(i for entry in entries for i in range(entry.first, entry.stop))
        return True

    def _replace(self, part: nn.Module) -> None:
        """Put a stand-in in the place of a part. Raises Untold."""
        stand_in = StandIn(part, self._told(part))
        put(self.piece, part, stand_in)
        try:
            as_deployed(self.piece)
        except (PassError, UsageError) as error:
            put(self.piece, stand_in, part)
            cause = error.__cause__ or error
            raise Untold(f"absence makes the pass raise {said(cause)}") from error

    def _told(self, part: nn.Module) -> Any:
        """What a part gives, as passes of several sizes tell. Raises Untold."""
        calls = self._calls[id(part)]
        if not calls:
            raise Untold("forward is called past the module's call, so that nobody saw it")
        if not self._sizings.vary:
            raise Untold("results were seen in one size; give rows to go by with --calibrate DATA")
        try:
            return template(calls)
        except Untold:  # a stride shows only where sizes lie side by side
            return template([*calls, *self._swept[id(part)]])

    @cached_property
    def _sizings(self) -> Sizings:
        return Sizings(self.piece)

    @cached_property
    def _calls(self) -> dict[int, list[Seen]]:
        return seen(self._sizings, self.chosen.values())

    @cached_property
    def _swept(self) -> dict[int, list[Seen]]:
        return seen(self._sizings.sweep, self.chosen.values())

    def _is_dead(self, entry: ModuleCall) -> bool:
        return not any(index in self.live for index in range(entry.first, entry.stop))

    def _computes(self, entry: ModuleCall) -> bool:
        return any(_is_work(call) for call in self.record.calls[entry.first : entry.stop])

    @property
    def share(self) -> float:
        """Of the multiply-accumulates of the pass, those that are dropped."""
        calls = self.record.calls
        whole = sum(call.macs or 0 for call in calls)
        return sum(calls[index].macs or 0 for index in self._gone) / whole if whole else 0.0

    def lines(self) -> str:
        """The calls that no output needs and that stand in code: the end of a sentence."""
        found = [
            call
            for call in self.record.calls
            if call.index not in self.live and call.index not in self._gone and _is_work(call)
        ]
        if not found:
            return ""
        sites = listed(list(dict.fromkeys(self.record.site(call) for call in found)))
        stay = "stays, as a line" if len(found) == 1 else "stay, as lines"
        return f"; {counted(len(found), 'call')} that no output needs {stay} of forward ({sites})"


def _is_work(call: Call) -> bool:
    return call.kind in ("compute", "in-place") and bool(call.macs or call.elements)
