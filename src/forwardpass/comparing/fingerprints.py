"""Fingerprints: a Record in a few lines, and how another pass differs from it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from forwardpass.errors import DataError, UsageError
from forwardpass.nouns.calls import Statistics
from forwardpass.nouns.fingerprints import Changes, Deviation, Fingerprint, OutputPrint
from forwardpass.nouns.records import Record

_TOLERANCE = 1e-3
"""Share of an output's standard deviation by which its statistics may move: another machine sums in
another order, and other versions have other kernels."""
_WEIGHTS = ("parameter", "buffer")


def fingerprint(record: Record) -> Fingerprint:
    """The fingerprint of a record that was made with `statistics=True`."""
    floating = [s for s in record.outputs.values() if record.values[s].dtype.startswith(("f", "b"))]
    if floating and not record.statistics:
        raise UsageError("a fingerprint needs statistics: record(…, statistics=True)")
    ran = [call for call in record.calls if call.is_operator]
    shapes = hashlib.sha256()
    for call in ran:
        results = [record.values[serial].shape for serial in call.outputs]
        shapes.update(f"{call.operator}{results}".encode())
    return Fingerprint(
        forward=record.forward,
        versions=record.versions,
        inputs={path: str(record.values[serial]) for path, serial in record.inputs.items()},
        operators=dict(sorted(Counter(call.operator for call in ran).items())),
        shapes=shapes.hexdigest()[:16],
        macs=record.totals.macs,
        parameters=record.totals.parameters,
        peak_bytes=peak_bytes(record),
        outputs={
            path: OutputPrint(str(record.values[serial]), record.statistics.get(serial))
            for path, serial in record.outputs.items()
        },
    )


def opened(path: str | os.PathLike[str]) -> Fingerprint:
    """The fingerprint in a file. Raises DataError for anything else."""
    try:
        return Fingerprint.from_json(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise DataError(
            f"{path} holds no fingerprint ({error}); `fwd record … --fingerprint FILE` writes one"
        ) from error


def peak_bytes(record: Record) -> int:
    """The most bytes that the values of a pass take at one time, weights left out.

    Each memory lives from the call that makes it to the last that reads it; what goes in and what
    comes out lives throughout, and to the end. An operator's own scratch memory is not counted.
    """
    sizes: dict[int, int] = {}
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    end = len(record.calls)
    for value in record.values:
        if value.origin in _WEIGHTS:
            continue
        sizes[value.storage] = max(sizes.get(value.storage, 0), value.nbytes)
        born = max(value.producer, 0)
        first[value.storage] = min(first.get(value.storage, born), born)
        last.setdefault(value.storage, born)
    weights = {value.storage for value in record.values if value.origin in _WEIGHTS}
    for call in record.calls:
        for serial in (*call.inputs, *call.outputs):
            last[record.values[serial].storage] = call.index
    for serial in (*record.outputs.values(), *record.inputs.values()):
        last[record.values[serial].storage] = end
    moves: Counter[int] = Counter()
    for storage, size in sizes.items():
        if storage not in weights:
            moves[first[storage]] += size
            moves[last[storage] + 1] -= size
    most = held = 0
    for place in sorted(moves):
        held += moves[place]
        most = max(most, held)
    return most


def changes(before: Fingerprint, record: Record) -> Changes:
    """How a new pass differs from a fingerprint."""
    now = fingerprint(record)
    return Changes(
        forward=now.forward,
        changes=tuple(_changes(before, now)),
        compared=("inputs", "operators", "shapes", "macs", "parameters", "peak_bytes", "outputs"),
    )


def _changes(before: Fingerprint, now: Fingerprint) -> Iterator[Deviation]:
    for path in {**before.inputs, **now.inputs}:
        one, other = before.inputs.get(path, "none"), now.inputs.get(path, "none")
        if one != other:
            yield Deviation(f"input {path}", one, other)
    for name in {**before.operators, **now.operators}:
        times, again = before.operators.get(name, 0), now.operators.get(name, 0)
        if times != again:
            yield Deviation(name, f"{times:,} ×", f"{again:,} ×")
    if before.shapes != now.shapes and before.operators == now.operators:
        yield Deviation("order or shapes of the operators", before.shapes, now.shapes)
    for name in ("macs", "parameters", "peak_bytes"):
        one, other = getattr(before, name), getattr(now, name)
        if one != other:
            yield Deviation(name, f"{one:,}", f"{other:,}")
    for path in {**before.outputs, **now.outputs}:
        yield from _of_output(path, before.outputs.get(path), now.outputs.get(path))


def _of_output(
    path: str, before: OutputPrint | None, now: OutputPrint | None
) -> Iterator[Deviation]:
    one, other = (side.form if side else "none" for side in (before, now))
    if one != other:
        yield Deviation(f"output {path}", one, other)
    elif before and now and before.statistics and now.statistics:
        for name, was, is_ in _apart(before.statistics, now.statistics):
            yield Deviation(f"{name} of output {path}", f"{was:.6g}", f"{is_:.6g}")


def _apart(before: Statistics, now: Statistics) -> Iterator[tuple[str, float, float]]:
    """The statistics that moved by more than rounding on another machine does."""
    spread = _TOLERANCE * max(before.std or 0.0, abs(before.mean or 0.0))
    for name in ("min", "max", "mean", "std"):
        one, other = getattr(before, name), getattr(now, name)
        if (one is None) != (other is None) or (one is not None and abs(one - other) > spread):
            yield (
                name,
                float("nan") if one is None else one,
                float("nan") if other is None else other,
            )
    for name in ("nan", "inf"):
        if getattr(before, name) != getattr(now, name):
            yield name, getattr(before, name), getattr(now, name)
