"""Which calls lead to the outputs of a pass, by the edges of its record."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from forwardpass.nouns.records import Record


def sources_of(record: Record) -> dict[int, list[int]]:
    """For each call, the calls that an edge leads from."""
    found: dict[int, list[int]] = {}
    for edge in record.edges:
        found.setdefault(edge.target, []).append(edge.source)
    return found


def makers(record: Record, serials: Iterable[int]) -> set[int]:
    """The calls that made these values, or wrote the memory that they stand in."""
    wanted = [record.values[serial] for serial in serials]
    found = {value.producer for value in wanted if value.producer >= 0}
    storages = {value.storage for value in wanted if value.storage >= 0}
    return found | {call.index for call in record.calls if storages.intersection(call.writes)}


def leading_to(record: Record, last: Iterable[int], without: Collection[int] = ()) -> set[int]:
    """These calls, and all from which edges lead to them; `without` are left out, and what leads
    through these alone."""
    sources = sources_of(record)
    found = set(last).difference(without)
    waiting = list(found)
    while waiting:
        for source in sources.get(waiting.pop(), ()):
            if source not in found and source not in without:
                found.add(source)
                waiting.append(source)
    return found
