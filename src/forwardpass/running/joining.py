"""The parts of a run that several drivers computed, as one."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Any

import fsspec
import msgspec

from forwardpass.errors import ResumeError, UsageError
from forwardpass.nouns.reports import JoinedPart, JoinReport
from forwardpass.running.destinations import SPLIT, store_of
from forwardpass.running.journals import Header, Journal
from forwardpass.running.options import Options

JOINED = "joined.json"
_SPLIT = re.compile(SPLIT.format(r"(\d+)", r"(\d+)"))


def join(out: str | os.PathLike[str]) -> JoinReport:
    """Require that all parts in `out` are there, complete, and of one run; say so in
    `OUT/joined.json`. Joining again does the same.

    Raises UsageError where `out` holds no parts or not all of them, ResumeError where one is not
    complete, which may be computed right now, or is of another run than the others.
    """
    place = os.fspath(out).rstrip("/")
    files, path = fsspec.core.url_to_fs(place)
    found = sorted(_numbers(files, path))
    if not found:
        raise UsageError(
            f"{place} holds no parts; `fwd run … -o {place} --part 1/8` writes the first of eight"
        )
    counts = sorted({count for _, count in found})
    if len(counts) > 1:
        raise UsageError(
            f"{place} holds parts of {' and of '.join(map(str, counts))}; keep those of one split"
        )
    count = counts[0]
    missing = [number for number in range(1, count + 1) if (number, count) not in found]
    if missing:
        raise UsageError(
            f"{place} lacks part {', '.join(map(str, missing))} of {count}: run it with "
            f"--part {missing[0]}/{count}"
        )
    parts: list[JoinedPart] = []
    first: Header | None = None
    for number in range(1, count + 1):
        header, part = _part(place, number, count)
        first = first or header
        _require_alike(place, number, first, header)
        parts.append(part)
    assert first is not None
    report = JoinReport(
        forward=first.forward,
        parts=tuple(parts),
        rows=sum(part.rows for part in parts),
        quarantined=sum(part.quarantined for part in parts),
        digest=hashlib.sha256("".join(part.digest for part in parts).encode()).hexdigest(),
    )
    files.pipe_file(f"{path}/{JOINED}", msgspec.json.encode(report))
    return report


def _numbers(files: Any, path: str) -> set[tuple[int, int]]:
    try:
        names = [str(name).rstrip("/").rpartition("/")[2] for name in files.ls(path, detail=False)]
    except FileNotFoundError:
        return set()
    matches = filter(None, map(_SPLIT.fullmatch, names))
    return {(int(match[1]), int(match[2])) for match in matches}


def _part(place: str, number: int, count: int) -> tuple[Header, JoinedPart]:
    """What one driver delivered. Its shards are what was committed, bit for bit."""
    name = SPLIT.format(number, count)
    store = store_of(f"{place}/{name}", Options())
    assert store is not None
    journal = Journal.read(store)
    if journal.header is None or journal.finished is None:
        raise ResumeError(
            f"part {number} of {count} in {place} is not complete; go on with it: "
            f"--part {number}/{count} --resume"
        )
    quarantined = sum(entry.quarantined for entry in journal.entries)
    finished = journal.finished
    return journal.header, JoinedPart(name, finished.rows, quarantined, finished.digest)


def _require_alike(place: str, number: int, first: Header, other: Header) -> None:
    """Raise ResumeError for a part of another Forward, of other options, or of other files."""
    differing = [
        name
        for name, then, now in (
            ("the Forward", first.sha256, other.sha256),
            ("the plan", first.plan, other.plan),
            ("the options", _shared(first), _shared(other)),
            ("the files that were split", first.data[-1], other.data[-1]),
        )
        if then != now
    ]
    if differing:
        raise ResumeError(
            f"part {number} in {place} is of another run than part 1: {' and '.join(differing)} "
            "differ; compute it again as the others were"
        )


def _shared(header: Header) -> bytes:
    return msgspec.json.encode({**header.options, "part": None}, order="sorted")
