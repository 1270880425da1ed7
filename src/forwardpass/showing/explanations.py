"""An Explanation: the arithmetic of one number, written out."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forwardpass.nouns.explanations import (
    Equation,
    Explanation,
    Gradient,
    Part,
    Term,
    is_rounding,
)
from forwardpass.nouns.records import Record
from forwardpass.showing.drawing import sizes
from forwardpass.showing.wording import GREEN, ORANGE, facts, number, plain

_Ending = tuple[Text, Text, str]
"""A name, what it is, and a number."""
_LARGEST, _FEW = 5, 9


def shown(explanation: Explanation) -> RenderableType:
    """An Explanation as rich draws it."""
    drawn: list[RenderableType] = [plain(Text(explanation.element.strip(), style="bold"))]
    for part in explanation.parts:
        drawn += _part(part)
    if explanation.gradient is not None:
        drawn += _gradient(explanation.gradient)
    return Group(*drawn)


def listed(record: Record) -> RenderableType:
    """What of a record can be explained, as rich draws it."""
    from forwardpass.explaining.targets import (
        targets,
    )  # loads PyTorch, which a report does not need

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
    yield plain(f"{part.name.lstrip('.')}{inside} · element [{index}]")
    yield plain(Text(f"{part.operator} at {part.place}", style="dim"))
    yield ""
    if part.steps:
        assert part.value is not None
        ending = _ending("what the pass computed", part.recorded, part.value, part)
        yield _arithmetic(part.steps, ending)
    else:
        yield plain(f"no breakdown: {part.lacking}")
        yield facts([*(("from", said) for said in part.inputs), ("it is", number(part.recorded))])


def _gradient(gradient: Gradient) -> Iterator[RenderableType]:
    yield ""
    yield plain(Text(f"∂ {gradient.loss} / ∂ {gradient.of}"))
    yield plain(Text(f"where {gradient.loss} is {number(gradient.loss_value)}", style="dim"))
    yield ""
    if gradient.value is None:
        yield plain("no breakdown: not all that reads it has a formula for the way back")
        yield facts([("autograd gives", number(gradient.autograd))])
        return
    ending = _ending("what autograd gives", gradient.autograd, gradient.value, gradient)
    yield _arithmetic(gradient.steps, ending)


def _arithmetic(steps: tuple[Equation, ...], ending: list[_Ending]) -> Table:
    """The steps under each other, their terms before them, and what the result is held against."""
    lines: list[_Ending] = []
    for step in steps:
        lines += _terms(step.terms)
        lines.append((Text(step.name), Text(f"= {step.formula}"), number(step.value)))
    lines += ending
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    values = _aligned([value for _, _, value in lines])
    for (name, what, _), value in zip(lines, values, strict=True):
        table.add_row(plain(name), plain(what), Text(value, style=what.style))
    return table


def _terms(terms: tuple[Term, ...]) -> Iterator[_Ending]:
    """The largest terms with their factors under each other, and the sum of the others."""
    largest = sorted(terms, key=_magnitude)
    most = len(terms) if len(terms) <= _FEW else _LARGEST
    shown, rest = largest[:most], largest[most:]
    width = max((cell_len(term.label) for term in shown), default=0)
    factors = _factors(shown)
    for term, product in zip(shown, factors, strict=True):
        blanks = " " * (width - cell_len(term.label))
        what = f"{term.label}{blanks}  {product}" if product else term.label
        yield Text(), Text(what, style="dim"), number(term.value)
    if rest:
        others = f"the sum of {len(rest):,} smaller terms"
        yield Text(), Text(others, style="dim"), number(sum(term.value for term in rest))


def _magnitude(term: Term) -> float:
    """For sorting: NaN first, then the largest."""
    return float("-inf") if term.value != term.value else -abs(term.value)


def _factors(terms: list[Term]) -> list[str]:
    """What was multiplied, the first factors under each other, the second ones, and so on."""
    places = max((len(term.factors) for term in terms), default=0)
    columns: list[list[str]] = []
    for place in range(places):
        said = [number(t.factors[place]) if place < len(t.factors) else "" for t in terms]
        columns.append(_aligned(said))
    return [
        " × ".join(column[row] for column in columns[: len(term.factors)])
        for row, term in enumerate(terms)
    ]


def _aligned(numbers: list[str]) -> list[str]:
    """Numbers with their points under each other, all of one width."""
    parts = [text.partition(".") for text in numbers]
    before = max((len(whole) for whole, _, _ in parts), default=0)
    after = max((len(point + rest) for _, point, rest in parts), default=0)
    return [f"{whole:>{before}}{point + rest:<{after}}" for whole, point, rest in parts]


def _ending(title: str, recorded: float, value: float, shown: Part | Gradient) -> list[_Ending]:
    """What the pass or autograd gave, and how far the arithmetic is from it."""
    lines: list[_Ending] = [(Text(), Text(title), number(recorded))]
    if recorded == value or (isnan(recorded) and isnan(value)):
        return [*lines, (Text(), Text("difference: none", GREEN), "0")]
    gap = recorded - value
    if is_rounding(recorded, value, shown.steps, shown.dtype):
        return [*lines, (Text(), Text("difference: rounding", GREEN), f"{gap:.1e}")]
    return [
        *lines,
        (Text(), Text("! difference: more than rounding explains", ORANGE), number(gap)),
    ]
