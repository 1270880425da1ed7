"""Which calls lead to the outputs of a pass, by the edges of its record."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from torch import nn

from forwardpass.nouns.calls import Call
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


def written(record: Record, parts: Mapping[str, nn.Module], call: Call) -> tuple[int, int]:
    """What the user's code asks for at a call, as a site and a module call: an operator; or, at
    site -1, the outermost of PyTorch's layers around it, whose own lines the user cannot change."""
    site, layer, around = call.site, call.module, call.module
    while around >= 0 and _is_pytorchs(parts.get(record.modules[around].path)):
        site, layer, around = -1, around, record.modules[around].parent
    return site, layer


def _is_pytorchs(part: nn.Module | None) -> bool:
    """Whether the forward of a module is code of PyTorch."""
    module = getattr(getattr(part, "forward", None), "__module__", None) or ""
    return module.startswith(("torch.nn.", "torch.ao."))
