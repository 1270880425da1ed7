"""A Validation: the verdict, how much was proved, and what stands against the record."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from forwardpass.nouns.validations import RUNGS, Validation
from forwardpass.showing.wording import GREEN, ORANGE, VERMILLION, facts, plain

_MOST = 5
_SIGNS = {"valid": ("✓", GREEN), "incomplete": ("!", ORANGE), "invalid": ("✗", VERMILLION)}


def shown(validation: Validation) -> RenderableType:
    """A Validation as rich draws it."""
    sign, colour = _SIGNS[validation.verdict]
    line = Text(f"{sign} {validation.verdict}", style=f"bold {colour}")
    return Group(plain(line), facts(_facts(validation)))


def _faults(count: int) -> str:
    return "1 fault" if count == 1 else f"{count:,} faults"


def _facts(validation: Validation) -> Iterator[tuple[str, Text | str]]:
    for rung, said in RUNGS.items():
        if rung <= validation.level:
            against = sum(1 for fault in validation.faults if fault.rung == rung)
            yield rung, said if not against else Text(f"✗ {said}: {_faults(against)}", VERMILLION)
    if validation.level > "a":
        yield (
            "replayed",
            f"{validation.replayed:,} of {validation.calls:,} calls ({validation.share:.1%}), "
            f"{validation.exact:,} of them bit for bit",
        )
    if validation.level >= "e":
        inputs = "1 input" if validation.moved == 1 else f"{validation.moved} inputs"
        yield "moved", f"{inputs}, to the end of the pass"
    if validation.level >= "f":
        yield "sampled", f"{validation.sampled} elements recomputed by formulas in float64"
    for fault in validation.faults[:_MOST]:
        where = f"call {fault.call}, {fault.operator}: " if fault.call >= 0 else ""
        yield "fault", Text(f"✗ ({fault.rung}) {where}{fault.said}", VERMILLION)
    for orphan in validation.orphans[:_MOST]:
        yield "orphan", Text(f"! nobody who was seen made {orphan.described}", ORANGE)
    for said in validation.unseen[:_MOST]:
        yield "unseen", Text(f"! {said}", ORANGE)
    for said in validation.cut_short[:_MOST]:
        yield "not moved", said
    if validation.unwritten:
        yield "no text", validation.unwritten
    for exempt in validation.exempt[:_MOST]:
        yield "exempt", f"call {exempt.call}, {exempt.operator}: {exempt.reason}"
    for constant in validation.constants[:_MOST]:
        yield "constant", constant.described
    if validation.formulas_missing:
        yield "no formula", ", ".join(validation.formulas_missing)
