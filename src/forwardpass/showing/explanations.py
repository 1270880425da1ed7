"""An Explanation: the arithmetic of one number, written out."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forwardpass.explaining.targets import targets
from forwardpass.nouns.explanations import Explanation, Gradient, Part, Step
from forwardpass.nouns.records import Record
from forwardpass.showing.drawing import sizes
from forwardpass.showing.wording import GREEN, ORANGE, facts, number, plain

_LARGEST = 5
_CLOSE = 1e-3
"""Share of the numbers' scale up to which a difference is rounding; larger ones are marked."""


def shown(explanation: Explanation) -> RenderableType:
    """An Explanation as rich draws it."""
    drawn: list[RenderableType] = [plain(Text(f"{explanation.element}", style="bold"))]
    for part in explanation.parts:
        drawn += _part(part)
    if explanation.gradient is not None:
        drawn += _gradient(explanation.gradient)
    return Group(*drawn)


def listed(record: Record) -> RenderableType:
    """What of a record can be explained, as rich draws it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("element", overflow="fold", ratio=1)
    table.add_column("of shape", justify="right")
    table.add_column("made by")
    for target in targets(record):
        index = ", ".join("0" * len(target.value.shape))
        table.add_row(plain(f"{target.name}[{index}]"), sizes(target.value), plain(target.made_by))
    return table


def _part(part: Part) -> Iterator[RenderableType]:
    index = ", ".join(map(str, part.element))
    inside = f" in {part.module}" if part.module else ""
    yield ""
    yield plain(f"{part.name}{inside} at {part.place} · element [{index}] · {part.operator}")
    if part.steps:
        yield _arithmetic(part.steps)
        assert part.value is not None
        yield facts(_ending("the pass computed", part.recorded, part.value, part.steps))
    else:
        yield plain(Text(f"no breakdown: {part.lacking}", style="dim"))
        yield facts([*(("from", said) for said in part.inputs), ("it is", number(part.recorded))])


def _gradient(gradient: Gradient) -> Iterator[RenderableType]:
    yield ""
    yield plain(f"∂loss/∂{gradient.of} · loss: {gradient.loss} = {number(gradient.loss_value)}")
    if gradient.value is None:
        yield facts(
            [("autograd", number(gradient.autograd)), ("", "no breakdown of the way back here")]
        )
        return
    yield _arithmetic(gradient.steps)
    yield facts(_ending("autograd gives", gradient.autograd, gradient.value, gradient.steps))


def _arithmetic(steps: tuple[Step, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column("name", no_wrap=True)
    table.add_column("formula", overflow="fold", ratio=1)
    table.add_column("value", justify="right", no_wrap=True)
    for step in steps:
        largest = sorted(step.terms, key=lambda term: -abs(term.value))
        shown_, rest = largest[:_LARGEST], largest[_LARGEST:]
        if len(rest) == 1:
            shown_, rest = largest, []
        for term in shown_:
            factors = " × ".join(map(_factor, term.factors))
            what = f"{term.label} = {factors}" if factors else term.label
            table.add_row("", plain(Text(what, style="dim")), number(term.value))
        if rest:
            others = f"the sum of {len(rest):,} smaller terms"
            table.add_row("", plain(Text(others, style="dim")), number(sum(t.value for t in rest)))
        table.add_row(plain(step.name), plain(f"= {step.formula}"), number(step.value))
    return table


def _factor(value: float) -> str:
    return f"({number(value)})" if value < 0 else number(value)


def _ending(
    title: str, recorded: float, value: float, steps: tuple[Step, ...]
) -> Iterator[tuple[str, Text | str]]:
    yield title, number(recorded)
    gap = recorded - value
    scale = max([abs(value), *(abs(term.value) for step in steps for term in step.terms)])
    if abs(gap) <= _CLOSE * scale or gap != gap:
        yield "difference", Text(f"{gap:.1e}: rounding", GREEN)
    else:
        yield "difference", Text(f"! {gap:.3e}, more than rounding explains", ORANGE)
