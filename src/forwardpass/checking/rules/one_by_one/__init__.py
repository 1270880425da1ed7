"""one-by-one: what can be computed for a batch at once is computed row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final, NamedTuple, TypeVar

import msgspec
import torch
from torch import nn

from forwardpass.checking.examinations import Examination, Inapplicable
from forwardpass.checking.rules.one_by_one.races import raced
from forwardpass.checking.rules.one_by_one.stacking import Replayed, replayed
from forwardpass.errors import PassError
from forwardpass.nouns.calls import Call, Site
from forwardpass.nouns.findings import Finding
from forwardpass.nouns.records import Need, Record
from forwardpass.probing.changes import Change
from forwardpass.probing.rows import ByRow
from forwardpass.tensors.distances import relative_distance

NEEDS: Final[tuple[Need, ...]] = ("numbers",)
MOST_PASSES: Final = 20
"""None where nothing is found, but one that other rules share; the rest measures what is saved: two
for each round of a race, and up to four to make the batch."""

_LEAST_CALLS = 4
"""Passes from one line below which nobody loops: a model is tried once, warmed up, run again."""
_MEASURED_ROWS = 8
"""Rows at least of a race: of two or three the cost of a call hides what a batch gains."""
_MOST_ROWS = 64
"""Rows at most: by then a batch has gained most of what it can, and memory stays small."""
_GAIN = 1.2
"""Times faster from which on a batch is worth a word: least times of races repeat within a tenth,
and either of two may be off."""


def check(probe: Examination) -> Iterable[Finding]:
    """That calls grow with the rows: a loop over them, inside of the model or in its caller.

    Inside: the pass runs with another number of rows, and lines whose calls grow in proportion are
    in a loop over rows. Loops over steps, layers or experts stay as they are. In the caller: one
    line called the model again and again with one row of one shape, and a batch gives the same.
    What one batch saves is measured on the numbers of the pass.
    """
    yield from _in_the_caller(probe)
    rows = probe.once(ByRow)
    if rows.count:
        yield from _inside(probe, rows)
    elif not probe.callers:
        raise Inapplicable("no input has a batch axis: there is nothing to count rows by")


Item = TypeVar("Item")


# Inside of the model


class Spot(NamedTuple):
    """What calls are counted by: an operator on a line, in a module."""

    site: Site
    operator: str
    module: str


class Loop(NamedTuple):
    """The calls that a loop in one module makes, and the one to point at."""

    place: Call
    calls: list[Call]


def _line(record: Record, call: Call) -> Spot:
    return Spot(record.site(call), call.operator, record.module(call).path)


def _inside(probe: Examination, rows: ByRow) -> Iterator[Finding]:
    other, resized = rows.resized
    base = rows.base
    growing = _in_proportion(
        Counter(_line(base, call) for call in base.calls),
        Counter(_line(resized, call) for call in resized.calls), rows.count, other,
    )  # fmt: skip
    repeated = _in_proportion(
        Counter(entry.path for entry in base.modules),
        Counter(entry.path for entry in resized.modules), rows.count, other,
    )  # fmt: skip
    loops: dict[int, list[Call]] = {}  # by the module call that loops
    for call in base.calls:
        path = base.module(call).path
        steps = path not in repeated and _is_recurrence(probe.parts.get(path))
        if _line(base, call) in growing and not steps:
            owner = call.module
            while base.modules[owner].path in repeated and owner:
                owner = base.modules[owner].parent
            loops.setdefault(owner, []).append(call)
    said: dict[Site, list[Loop]] = {}
    for owner, calls in loops.items():
        if any(_works(call) for call in calls):
            place = next((call for call in calls if call.module == owner), calls[0])
            said.setdefault(base.site(place), []).append(Loop(place, calls))
    for alike in said.values():
        yield _found(probe, rows, alike)


def _in_proportion(
    before: Counter[Item], after: Counter[Item], count: int, other: int
) -> set[Item]:
    """What comes so often for each row, in both passes."""
    return {
        what
        for what, times in before.items()
        if times % count == 0 and after[what] == times // count * other
    }


def _is_recurrence(part: nn.Module | None) -> bool:
    """Whether PyTorch's own code of a recurrence runs in a module: one call of it loops over
    steps, which are axis 0 where time comes first. By its class: on other backends it is one
    operator or many, and a module of the user's own that loops over rows has the same ones."""
    return isinstance(part, nn.RNNBase) and type(part).forward.__module__ == nn.RNNBase.__module__


def _works(call: Call) -> bool:
    return call.kind not in ("view", "host") and bool(call.macs or call.elements)


def _found(probe: Examination, rows: ByRow, loops: list[Loop]) -> Finding:
    """What is said of a loop; of the same one in several modules, once."""
    base = rows.base
    calls = [call for loop in loops for call in loop.calls]
    times, count = _replayed(probe, rows, {_line(base, call) for call in calls})
    each = len(calls) // rows.count
    said = f"{len(calls)} calls for {rows.count} rows, {each} for each"
    if rows.count == 1:
        said = f"{each} calls for each row (1 was given)"
    if len(loops) > 1:
        said += f", in {len(loops)} modules"
    evidence: dict[str, float | int] = {"calls": len(calls), "rows": rows.count}
    if times is not None:
        said += (
            f"; for {count} rows its products and layers take {_short(times.apart)} one by one, "
            f"and {_short(times.together)} as one batch"
        )
        evidence |= {"apart_seconds": times.apart, "together_seconds": times.together}
    place = loops[0].place
    made = probe.finding(
        "warning" if times is not None and times.times >= _GAIN else "note",
        f"a loop over the rows: {said}",
        "give the layer the whole batch: it computes every row at once",
        call=place, record=base,
    )  # fmt: skip
    return msgspec.structs.replace(made, evidence=evidence)


def _replayed(probe: Examination, rows: ByRow, lines: set[Spot]) -> tuple[Replayed | None, int]:
    """What products and layers on these lines take, apart and together; for how many rows."""
    count, record = rows.count, rows.whole
    if count < _MEASURED_ROWS:
        count = _MEASURED_ROWS
        given = tuple(place % rows.count for place in range(count))
        record = probe.recording(Change(rows=given, mode=rows.mode))
    by_line: dict[Spot, list[Call]] = {}
    for call in record.calls:
        if _is_layer(record, call) and (line := _line(record, call)) in lines:
            by_line.setdefault(line, []).append(call)
    groups = [
        found[start :: len(found) // count]
        for found in by_line.values()
        if len(found) % count == 0
        for start in range(len(found) // count)
    ]
    return replayed(record, groups), count


def _is_layer(record: Record, call: Call) -> bool:
    """Whether a call is a product, or computes something with a parameter. Other arithmetic by rows
    is a matter of taste: what has to be done for each row often cannot be done at once."""
    if call.macs:
        return True
    known = call.operator.startswith("aten.")  # others may not check what they are given
    return (
        known and _works(call) and any(record.values[s].origin == "parameter" for s in call.inputs)
    )


def _short(took: float) -> str:
    return f"{took * 1e3:.2f} ms" if took < 1 else f"{took:.2f} s"


# In the code that calls the model


def _in_the_caller(probe: Examination) -> Iterator[Finding]:
    """Lines that gave the model one row again and again, of the shapes of this pass."""
    record = probe.record
    if not probe.callers or any(call.kind == "random" for call in record.calls):
        return
    shapes = _shapes(record)
    lines: Counter[Site] = Counter(
        other.caller
        for other in probe.callers
        if other.caller is not None and _shapes(other) == shapes
    )
    for site, times in lines.items():
        learned = any(line.learned for line in probe.lines if line.site == site)
        if times < _LEAST_CALLS or learned or _may_feed_itself(record):
            continue
        count = min(times, _MOST_ROWS)
        batch = _batch(probe, count)
        if batch is None:
            continue
        one, all_of_them = raced(probe.seconds, partial(probe.seconds, Change(inputs=batch)))
        if one * count < _GAIN * all_of_them:
            continue
        made = probe.finding(
            "warning",
            f"called {_often(probe, site, times)} with one row: {count} rows take "
            f"{_short(one * count)} so, and {_short(all_of_them)} as one batch, "
            f"{one * count / all_of_them:.1f} × faster",
            "stack the rows and call the model once a batch",
            calls=times, rows=count, apart_seconds=one * count, together_seconds=all_of_them,
        )  # fmt: skip
        yield msgspec.structs.replace(made, site=site)


def _often(probe: Examination, site: Site, times: int) -> str:
    """How often a line called with one row. A script's passes are not all recorded: if all that
    were are alike, so are the others."""
    recorded = sum(other.caller == site for other in probe.callers)
    made = max(recorded, sum(line.times for line in probe.lines if line.site == site))
    if times == recorded:
        return f"{made} times"
    return f"{'at least ' if made > recorded else ''}{times} times"


def _shapes(record: Record) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((path, record.values[s].shape) for path, s in record.inputs.items())


def _may_feed_itself(record: Record) -> bool:
    """Whether what came out of one pass may go into the next, as the state of a recurrence does:
    an output has the form of an input."""
    forms = {(record.values[s].shape, record.values[s].dtype) for s in record.inputs.values()}
    return any(
        (record.values[s].shape, record.values[s].dtype) in forms for s in record.outputs.values()
    )


def _batch(probe: Examination, count: int) -> dict[str, torch.Tensor] | None:
    """Inputs of `count` equal rows, where the model gives each of them what it gives one; None
    where it does not."""
    if probe.rows == 1:
        batch = probe.rows_of([0] * count)
    elif probe.signature is None and len(probe.inputs) == 1 and not _has_batch(probe):
        batch = {n: torch.stack([t] * count) for n, t in probe.inputs.items()}
    else:
        return None
    try:
        came = probe.outputs(Change(inputs=batch))
    except PassError:
        return None
    mine = probe.record.returned
    allowed = probe.once(ByRow).tolerance
    for path, tensor in mine.items():
        large = came.get(path)
        if large is None or not any(
            large.shape == expected.shape and relative_distance(large, expected) <= allowed
            for expected in _repeated(tensor, count, probe.rows == 1)
        ):
            return None
    return batch


def _has_batch(probe: Examination) -> bool:
    """Whether the model takes another number of rows along what may be the batch axis."""
    try:
        return bool(probe.rows and probe.once(ByRow).resized)
    except PassError:
        return False


def _repeated(tensor: torch.Tensor, count: int, has_batch: bool) -> Iterator[torch.Tensor]:
    if has_batch:
        for axis in (axis for axis, size in enumerate(tensor.shape) if size == 1):
            yield tensor.repeat_interleave(count, axis)
    else:
        yield torch.stack([tensor] * count)
