"""Path: which way did my code go? The lines that ran, how often, and where two inputs part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec

from forwardpass.code.owners import Owner, owner
from forwardpass.code.sources import file_of, shortened
from forwardpass.code.statements import source
from forwardpass.errors import UsageError
from forwardpass.exploring.asking import PageQuestion
from forwardpass.exploring.conditions import Condition, condition
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.exports import TriedExport, tried_export, why_not_tried
from forwardpass.exploring.predictions import PagePrediction, Settled
from forwardpass.exploring.views import Predictions, View
from forwardpass.exploring.ways import Turn, Walked, parted, walked
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.records import Record

_MOST_LINES: Final = 6_000
"""Lines of code that are shown; of more functions only the number is told."""
_OWNERS: Final = {Owner.USER: "yours", Owner.STRING: "yours", Owner.LAYERS: "torch"}
_HASH: Final = 6
_NO_LINES: Final = -1

Times = Counter[tuple[str, int]]
"""By file and line."""


class CodeLines(msgspec.Struct, frozen=True):
    """The lines of a function that ran.

    Attributes:
        owner: whose it is. lines: its text, from line `first` of `file` on.
        a, b: how often each statement began in the passes of the two rows, by line; -1 where none
            begins. `b` is empty where there is one row.
    """

    file: str
    owner: Literal["yours", "library", "torch"]
    name: str
    first: int
    lines: tuple[str, ...]
    a: tuple[int, ...]
    b: tuple[int, ...] = ()


class RowWay(msgspec.Struct, frozen=True):
    """The pass of a row: its hash over lines and operators, its calls, what it raised."""

    row: int
    path: str
    calls: int
    error: str


class Parting(msgspec.Struct, frozen=True):
    """Where two ways part.

    Attributes:
        visit: how often both had come by the line. a_turn, b_turn: how each went on; a_line,
            b_line: where in the function, 0 where it left it.
    """

    file: str
    line: int
    visit: int
    condition: Condition
    a_turn: Turn
    b_turn: Turn
    a_line: int
    b_line: int


Alike = Literal["alone", "same", "lines", "times", "operators"]
"""What two passes have in common: all, or they differ in lines, in how often one runs, or only in
the operators that their lines call."""


class Ways(msgspec.Struct, frozen=True):
    """The way of a row through the code, and that of another one.

    Attributes:
        counted: `lines` were followed; or only the `calls` that a saved record holds.
        more: functions that are not shown. notes: what one should know of it.
    """

    counted: Literal["lines", "calls"]
    a: RowWay
    b: RowWay | None
    alike: Alike
    functions: tuple[CodeLines, ...]
    more: int
    parting: Parting | None
    notes: tuple[str, ...]


class SameWay(msgspec.Struct, frozen=True):
    """The rows whose passes made the same calls at the same lines."""

    path: str
    calls: int
    rows: tuple[int, ...]


class AllWays(msgspec.Struct, frozen=True):
    """The rows by their way, the most frequent first."""

    ways: tuple[SameWay, ...]


def lines(
    exploration: Exploration, steps: Steps, *, row: int = 0, other: int | None = None
) -> Ways:
    """The lines that ran for a row, and for another one beside it."""
    steps.begin("recording", 1 if other is None else 2)
    records = [exploration.record((row,))]
    if exploration.given is None:
        return _of_calls(records[0])
    steps.advance()
    if other is not None:
        records.append(exploration.record((other,)))
        steps.advance()
    rows = (row,) if other is None else (row, other)
    steps.begin("following lines", len(rows) + 1)
    walks: list[Walked] = []
    for one in rows:
        walks.append(walked(exploration, one))
        steps.advance()
    times = [walk.way.times() for walk in walks]
    functions, more = _functions(times)
    heads = [
        RowWay(one, record.path[:_HASH], record.totals.calls, walk.error)
        for one, record, walk in zip(rows, records, walks, strict=True)
    ]
    notes = list(_notes(walks, functions))
    alike: Alike = "alone"
    parting: Parting | None = None
    if other is not None:
        alike = _alike(times, records)
        parting = _parting(exploration, (row, other), walks)
    return Ways(
        "lines", heads[0], None if other is None else heads[1], alike, functions, more, parting,
        tuple(notes),
    )  # fmt: skip


def _alike(times: Sequence[Times], records: Sequence[Record]) -> Alike:
    if times[0].keys() != times[1].keys():
        return "lines"
    if times[0] != times[1]:
        return "times"
    return "same" if records[0].path == records[1].path else "operators"


def _notes(walks: Sequence[Walked], functions: Sequence[CodeLines]) -> Iterator[str]:
    if not functions:
        yield "No line of Python ran in the model: there is nothing to follow."
    elif not any(function.owner == "yours" for function in functions):
        yield "No line of a file of yours ran: the model is made of layers of libraries alone."
    if any(walk.way.is_cut for walk in walks):
        yield "The pass has more lines than are followed: counts are too small."


def _parting(
    exploration: Exploration, rows: tuple[int, int], walks: Sequence[Walked]
) -> Parting | None:
    found = parted(walks[0].way, walks[1].way)
    if found is None:
        return None
    place = found.place
    return Parting(
        shortened(place.file), place.line, found.visit, condition(exploration, rows, found),
        *found.turns, *found.lines,
    )  # fmt: skip


def _functions(times: Sequence[Times]) -> tuple[tuple[CodeLines, ...], int]:
    """The functions with lines that ran, the user's first, in the order in which they ran."""
    found: dict[tuple[str, int, int, str], None] = {}
    for file, line in dict.fromkeys(place for one in times for place in one):
        found[file, *source(file).around(line)] = None
    ordered = sorted(found, key=lambda f: ("yours", "library", "torch").index(_owner(f[0])))
    shown: list[CodeLines] = []
    left = _MOST_LINES
    for file, first, last, name in ordered:
        text = source(file)
        left -= last - first + 1
        if left < 0:
            break
        span = range(first, last + 1)
        counts = [tuple(_count(one, file, line) for line in span) for one in times]
        said = tuple(text.lines[line - 1].rstrip() if line <= len(text.lines) else ""
                     for line in span)  # fmt: skip
        shown.append(CodeLines(shortened(file), _owner(file), name, first, said, *counts))
    return tuple(shown), len(ordered) - len(shown)


def _owner(file: str) -> Literal["yours", "library", "torch"]:
    found = _OWNERS.get(owner(file), "library")
    return "yours" if found == "yours" else "torch" if found == "torch" else "library"


def _count(times: Times, file: str, line: int) -> int:
    return times.get((file, line), 0 if line in source(file).begins else _NO_LINES)


def _of_calls(record: Record) -> Ways:
    """What a saved record tells: the lines that called operators, as far as the files are here."""
    times: Times = Counter()
    for call in record.calls:
        site = record.sites[call.site]
        times[file_of(site.file, site.line), site.line] += 1
    functions, more = _functions([times])
    shown = [
        msgspec.structs.replace(one, a=tuple(times or _NO_LINES for times in one.a))
        for one in functions
    ]
    note = (
        "This pass was saved: the counts are of its operator calls; lines without any cannot be "
        "told, and the files may have changed since."
    )
    walk = RowWay(0, record.path[:_HASH], record.totals.calls, record.failed.error if record.failed
                else "")  # fmt: skip
    return Ways("calls", walk, None, "alone", tuple(shown), more, None, (note,))


def ways(exploration: Exploration, steps: Steps) -> AllWays:
    """Which rows go the same way, by a pass of each."""
    steps.begin("row by row", exploration.count)
    found: dict[str, tuple[int, list[int]]] = {}
    for row in range(exploration.count):
        record = exploration.record((row,))
        found.setdefault(record.path, (record.totals.calls, []))[1].append(row)
        steps.advance()
    ordered = sorted(found.items(), key=lambda way: -len(way[1][1]))
    return AllWays(tuple(SameWay(p[:_HASH], calls, tuple(rows)) for p, (calls, rows) in ordered))


def export(
    exploration: Exploration, steps: Steps, *, row: int = 0, other: int | None = None
) -> TriedExport:
    """What torch.export makes of the pass, and of other rows with what it made."""
    return tried_export(exploration, steps, row, other)


_SAME_WAY: Final = (
    "Yes: the same lines, as often",
    "No: other lines",
    "The same lines, another number of times",
    "The same lines, other operators",
)
_PLACES: Final = {"same": 0, "lines": 1, "times": 2, "operators": 3}
_EXPORTS: Final = {
    "same": "A graph that does the same for all of these inputs",
    "narrowed": "A graph of this way only: other inputs are refused, or come out wrong",
    "refused": "No graph: it refuses this code",
}


def predictions(exploration: Exploration, steps: Steps, *, row: int = 0) -> Predictions:
    """Whether the next row goes the same way; and what export would lose."""
    found: list[PagePrediction] = []
    given = exploration.given
    if given is not None and given.count > 1:
        other = (row + 1) % given.count
        found.append(
            PagePrediction(
                "same-way",
                f"B is row {other}. Does it go through the code as row {row} does?",
                _SAME_WAY,
                ("other",),
                {"other": other},
            )
        )
    if given is not None and not why_not_tried(exploration, row):
        found.append(
            PagePrediction(
                "export",
                "This pass ran without a graph that was declared beforehand. What does "
                "torch.export make of it?",
                tuple(_EXPORTS.values()),
                ("export",),
                {"other": (row + 1) % given.count} if given.count > 1 else {},
            )
        )
    return Predictions(tuple(found))


def settle(
    exploration: Exploration, steps: Steps, *, row: int = 0, id: str = "same-way",
    other: int | None = None,
) -> Settled:  # fmt: skip
    """What came of it."""
    if id == "export":
        tried = export(exploration, steps, row=row, other=other)
        place = list(_EXPORTS).index(tried.outcome)
        return Settled((place,), tried.answer, tried.said)
    found = lines(exploration, steps, row=row, other=other)
    if id != "same-way" or found.b is None:
        raise UsageError(f"the prediction {id!r:.40}: there are same-way, with another row, and "
                         "export")  # fmt: skip
    a, b = found.a, found.b
    sign = "=" if a.path == b.path else "≠"
    answer = f"{a.calls:,} {'=' if a.calls == b.calls else '≠'} {b.calls:,} calls"
    if a.calls == b.calls and sign == "≠":
        answer = f"{a.path} ≠ {b.path}"
    return Settled((_PLACES[found.alike],), answer, _why(found))


def _why(found: Ways) -> str:
    parting = found.parting
    if parting is None:
        return {
            "same": "Each statement ran as often for both.",
            "operators": "Each line ran as often; what one of them calls depends on the input.",
        }.get(found.alike, "They have no line in common.")
    where = f"{parting.condition.text} in line {parting.line}"
    if not (parting.a_turn and parting.b_turn):
        return f"They part after line {parting.line}: {parting.condition.text}."
    if parting.condition.kind == "for":
        return f"The loop over {where}: {parting.a_turn} for A, {parting.b_turn} for B."
    return f"{where} was {parting.a_turn} for A, {parting.b_turn} for B."


def exported(exploration: Exploration) -> Iterator[PageQuestion]:
    """The first row, and the next one beside it."""
    yield PageQuestion("path.predictions", {"row": 0})
    yield PageQuestion("path.lines", {"row": 0})
    if exploration.given is None:
        return
    if exploration.count > 1:
        yield PageQuestion("path.lines", {"row": 0, "other": 1})
        yield PageQuestion("path.settle", {"row": 0, "id": "same-way", "other": 1})
    if not why_not_tried(exploration, 0):
        others = {"other": 1} if exploration.count > 1 else {}
        yield PageQuestion("path.export", {"row": 0, **others})
        yield PageQuestion("path.settle", {"row": 0, "id": "export", **others})


VIEW = View("path", 5, "Path", "Which way did my code go?")
ASKED = (lines, ways, export, predictions, settle)
