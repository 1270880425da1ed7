"""Ways: which statements of the model's code the pass of a row came by, and where two part."""

from __future__ import annotations

import ast
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from forwardpass.code.lines import Itinerary, LineTrace, StatementPlace
from forwardpass.code.owners import Owner, owner
from forwardpass.code.statements import Statements, body_of, source
from forwardpass.errors import PassError
from forwardpass.exploring.explorations import Exploration

Turn = Literal["true", "false", "another round", "over", ""]
"""Which way a statement went on; "" where its lines do not tell."""
_FOLLOWED = (Owner.USER, Owner.STRING, Owner.LIBRARY, Owner.LAYERS)


@dataclass(frozen=True)
class Walked:
    """What a row's pass came by, and what it raised, if it did."""

    way: Itinerary
    error: str


def followed(file: str) -> bool:
    """Whether the lines of a file are followed: those of the user, of libraries, of PyTorch's
    layers; not what lies beneath."""
    return owner(file) in _FOLLOWED


def walked(exploration: Exploration, row: int) -> Walked:
    """One more pass of a row, alone and as deployed, whose lines are followed."""
    lines = LineTrace(followed)
    error = made_within(exploration, row, lines)
    return Walked(lines.way(), error)


def made_within(exploration: Exploration, row: int, around: AbstractContextManager[Any]) -> str:
    """Make the pass of a row within a context; what it raised, "" for nothing."""
    try:
        probe = exploration.probe((row,))
    except PassError as error:
        if error.record is None:
            raise
        this: Any = getattr(error.record, "this")  # noqa: B009 - of the Recording, as far as it came
        make = lambda: this.plain(around)  # noqa: E731
    else:
        make = lambda: probe.walk(around)  # noqa: E731
    try:
        make()
    except Exception as raised:  # noqa: BLE001 - whatever the user's code raises is shown
        return f"{type(raised).__name__}: {raised}"
    return ""


@dataclass(frozen=True)
class WayApart:
    """Where two ways part.

    Attributes:
        place: of the statement that both came by, and that decided.
        visit: how often both had come by it.
        begins: the line with which it began, and how often that had run then.
        turns: by way, how it went on. lines: the line at which it went on in that function; 0
            where it left the function.
    """

    place: StatementPlace
    visit: int
    begins: tuple[int, int]
    turns: tuple[Turn, Turn]
    lines: tuple[int, int]


def parted(a: Itinerary, b: Itinerary) -> WayApart | None:
    """Where two ways part; None where they do not, or where they have nothing in common."""
    shorter = min(len(a.steps), len(b.steps))
    apart = next(
        (i for i in range(shorter) if a.places[a.steps[i]] != b.places[b.steps[i]]), shorter
    )
    if not apart or len(a.steps) == len(b.steps) == apart:
        return None
    call = _deciding(a, b, apart)
    at = next((i for i in reversed(range(apart)) if a.activations[i] == call), apart - 1)
    place = a.places[a.steps[at]]
    nexts = [_next(way, apart, call) for way in (a, b)]
    turns: list[Turn] = [_turn(source(place.file), place, line) for line in nexts]
    return WayApart(
        place, sum(a.steps[i] == a.steps[at] for i in range(at + 1)),
        (a.lines[at], a.visits[at]), (turns[0], turns[1]), (nexts[0], nexts[1]),
    )  # fmt: skip


def _deciding(a: Itinerary, b: Itinerary, apart: int) -> int:
    """The call of a function in which it was decided: of those in which the two go on, as far as
    they had begun before, the inner one."""
    begun = set(a.activations[:apart])
    chains: list[list[int]] = []
    for way in (a, b):
        one = way.activations[apart] if apart < len(way.steps) else -1
        chain: list[int] = []
        while one >= 0:
            if one in begun:
                chain.append(one)
            one = way.parents[one]
        chains.append(chain)
    inner = max(chains, key=len)
    return inner[0] if inner else a.activations[apart - 1]


def _next(way: Itinerary, start: int, call: int) -> int:
    """The line at which a way goes on in a call of a function, from a step on; 0 for none."""
    found = (i for i in range(start, len(way.steps)) if way.activations[i] == call)
    place = next(found, None)
    return 0 if place is None else way.places[way.steps[place]].line


def _turn(text: Statements, place: StatementPlace, line: int) -> Turn:
    node = text.at(place.line)
    body = None if node is None or place.within else body_of(node)
    if node is None or body is None:
        return ""
    inside = body[0] <= line <= body[1]
    if isinstance(node, ast.If | ast.While):
        return "true" if inside else "false"
    return ("another round" if inside else "over") if isinstance(node, ast.For) else ""
