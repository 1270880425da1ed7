"""host-boundary: values that leave for Python, random numbers and prints that come from there."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

import msgspec
import torch

from forwardpass.checking.examinations import Examination
from forwardpass.checking.rules.host_boundary.escapes import Escape, Escapes
from forwardpass.code.owners import Owner, is_installed, owner, past_ours
from forwardpass.nouns.calls import Call, Site
from forwardpass.nouns.findings import Finding, Severity
from forwardpass.nouns.records import Need, Record
from forwardpass.recording.schemas import Schema
from forwardpass.recording.walking import Walk
from forwardpass.tensors.distances import relative_distance
from forwardpass.tensors.trees import flatten

NEEDS: Final[tuple[Need, ...]] = ()
MOST_PASSES: Final = 5
"""One with escapes watched, one with what PyTorch reads itself, one for each line that is bent."""

_BREAKS: Final = "a device must wait for it, and CUDA graphs cannot hold it"
_NN: Final = os.path.join(os.path.dirname(torch.nn.__file__), "")
_PRINTS: Final = "_tensor_str.py"
_BEND: Final = 1e-3
"""Share by which a number is bent: twice what f16 rounds by, so that it comes through, and too
little to send most code another way."""
_MOST_BENT: Final = 3
"""Lines that take a pass each; what leaves at others is reported without its effect."""
_BULK: Final = ("Tensor.numpy", "Tensor.tolist")


@dataclass
class _HostLine:
    """The calls of one line that hand values to Python.

    Attributes:
        floating: whether numbers leave, rather than counts, sizes and truths.
        bulk: whether whole tensors leave.
        moves: by how much the outputs move if what leaves is bent by a thousandth.
    """

    site: Site
    calls: list[Call] = field(default_factory=list[Call])
    floating: bool = False
    bulk: bool = False
    moves: float = 0.0


def check(probe: Examination) -> Iterable[Finding]:
    """Where the pass leaves PyTorch: what it hands to Python, and what it takes from there.

    A number that leaves is bent by a thousandth, in one more pass: if outputs move, it goes back
    into the computation, which it need not have left. What only decides which way the pass goes
    is a note, and so is what libraries do. Random numbers and prints are seen while it runs.
    """
    record = probe.record
    escapes = Escapes(probe.module)
    probe.walk(escapes)
    reads = {e.site: e for e in escapes.found.values() if e.kind == "read"}
    others = [e for e in escapes.found.values() if e.kind != "read"]
    printing = {e.site for e in others if e.kind == "print"}
    places = _places(probe, printing)
    _bend(probe, places)
    mine = [place for place in places if not is_installed(place.site)]
    for place in mine:
        yield _of_place(probe, place, reads.get(place.site))
    theirs = [place for place in places if is_installed(place.site)]
    if theirs:
        count = sum(len(place.calls) for place in theirs)
        yield probe.finding(
            "note", f"libraries look at values in Python ({_often(count)}, lines: {len(theirs)}): "
            f"{_BREAKS}", "look in the library's settings for a way around, if it must be exported",
            call=theirs[0].calls[0], values=count, lines=len(theirs),
        )  # fmt: skip
    yield from _of_escapes(probe, record, others, escapes.drawn)


# -- values that leave ----------------------------------------------------------------------------


class _Reading(Walk):
    """Sees who hands values to Python: indices of calls that PyTorch's own layers make (`inside`),
    and of those that write a tensor as text (`printed`)."""

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.inside: set[int] = set()
        self.printed: set[int] = set()

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if call.kind == "host":
            frame = past_ours(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
            if frame is not None and frame.f_code.co_filename.startswith(_NN):
                self.inside.add(call.index)
            while frame is not None and _is_torch(frame):
                if frame.f_code.co_filename.endswith(_PRINTS):
                    self.printed.add(call.index)
                frame = frame.f_back
        return func(*args, **kwargs)


def _is_torch(frame: FrameType) -> bool:
    return owner(frame.f_code.co_filename) in (Owner.TORCH, Owner.LAYERS)


def _places(probe: Examination, printing: set[Site | None]) -> list[_HostLine]:
    """The lines at which values leave; without those of PyTorch's layers, and what prints show."""
    record = probe.record
    hosts = [call for call in record.calls if call.kind == "host"]
    if not hosts:
        return []
    reading = _Reading(record)
    if not all(is_installed(record.site(call)) for call in hosts):
        probe.walk(reading)
    found: dict[int, _HostLine] = {}
    for call in hosts:
        site = record.site(call)
        if call.index in reading.inside or call.index in reading.printed or site in printing:
            continue
        place = found.setdefault(call.site, _HostLine(site))
        place.calls.append(call)
        values = [record.values[serial] for serial in call.inputs]
        floating = any(value.dtype.startswith(("f", "bf", "c")) for value in values)
        place.floating |= floating
        place.bulk |= floating and call.operator in _BULK
    return list(found.values())


class _Bent(Walk):
    """Hands Python other numbers than the pass has, at the calls `bent`."""

    def __init__(self, record: Record, bent: Sequence[Call]) -> None:
        super().__init__(record)
        self._bent = frozenset(call.index for call in bent)

    def at(
        self, call: Call, func: Any, schema: Schema, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        result = func(*args, **kwargs)
        if call.index in self._bent and type(result) is float:
            return result * (1 + _BEND) if result else _BEND
        return result


def _bend(probe: Examination, places: Sequence[_HostLine]) -> None:
    """Measure by how much outputs move if a number is bent on its way through Python."""
    before: Mapping[str, torch.Tensor] = probe.record.returned
    for place in [p for p in places if p.floating and not p.bulk][:_MOST_BENT]:
        walk = _Bent(probe.record, place.calls)
        try:
            after = flatten(probe.walk(walk))
        except Exception:  # noqa: BLE001 - the model refuses what was bent: it does not compute with it
            continue
        if not walk.parted and after.keys() == before.keys():
            alike = [k for k in after if after[k].shape == before[k].shape]
            moves = (relative_distance(after[k].detach(), before[k]) for k in alike)
            place.moves = max(moves, default=0.0)


def _of_place(probe: Examination, place: _HostLine, read: Escape | None) -> Finding:
    call = place.calls[0]
    value = probe.record.values[call.inputs[0]] if call.inputs else None
    what = f"{value}" if value is not None else "a value"
    often = _often(len(place.calls))
    seconds = 0.0 if read is None else read.seconds
    took = f", {seconds * 1e3:.2g} ms" if seconds else ""
    said: tuple[Severity, str, str]
    if place.bulk:
        said = (
            "warning", f"{call.name} takes {what} to Python ({often}{took}): gradients end here, "
            f"{_BREAKS}", "compute it with torch operators, or take it after forward",
        )  # fmt: skip
    elif place.moves:
        said = (
            "warning", f"{call.name or 'a read'} takes {what} to Python and back into the pass "
            f"({often}{took}): bent by 0.1% there, it moves the outputs by {place.moves:.1g} of "
            f"their scale; {_BREAKS}", "keep it a tensor: operators take it as well as a number",
        )  # fmt: skip
    else:
        said = (
            "note", f"Python looks at {what} ({often}{took}), to decide by it or to show it: "
            f"{_BREAKS}, and torch.export has no value to decide by",
            "torch.where, a mask or torch.cond keep it in the graph; fine where it must decide",
        )  # fmt: skip
    severity, message, remedy = said
    return probe.finding(
        severity, message, remedy, call=call, times=len(place.calls), output_moves=place.moves,
        seconds=seconds,
    )  # fmt: skip


def _often(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


# -- what comes from outside ----------------------------------------------------------------------


def _of_escapes(
    probe: Examination,
    record: Record,
    found: Sequence[Escape],
    drawn: Sequence[tuple[str, Site | None]],
) -> Iterator[Finding]:
    training = record.modules[0].training if record.modules else False
    by_site: dict[tuple[str, Site | None], list[Escape]] = {}
    for escape in found:
        by_site.setdefault((escape.kind, escape.site), []).append(escape)
    for (kind, site), escapes in by_site.items():
        installed = site is None or is_installed(site)
        names = ", ".join(dict.fromkeys(escape.name for escape in escapes))
        count = sum(escape.count for escape in escapes)
        seconds = sum(escape.seconds for escape in escapes)
        took = f"{names}, {_often(count)}, {seconds * 1e3:.2g} ms"
        if kind == "print":
            severity: Severity = "note" if installed else "warning"
            yield _at(
                probe, site, severity, f"forward prints ({took}): every pass pays for it, and "
                "torch.export drops it", "print outside of forward, or in a hook",
                count, seconds,
            )  # fmt: skip
        else:
            severity = "note" if installed or training else "warning"
            yield _random(probe, site, severity, took, count, seconds)
    seen = {kind for kind, _ in by_site}
    for name, site in drawn:
        kind = {"random": "random", "np.random": "numpy"}.get(name)
        if kind is None or kind not in seen:
            severity = "note" if training else "warning"
            yield _random(probe, site, severity, name, 1, 0.0)


def _random(
    probe: Examination, site: Site | None, severity: Severity, took: str, count: int, seconds: float
) -> Finding:
    return _at(
        probe, site, severity, f"forward draws random numbers outside of PyTorch ({took}): "
        "torch.manual_seed does not rule them, and torch.export keeps what was drawn once",
        "draw them by torch.rand or torch.randint", count, seconds,
    )  # fmt: skip


def _at(
    probe: Examination, site: Site | None, severity: Severity, message: str, remedy: str,
    times: int, seconds: float,
) -> Finding:  # fmt: skip
    finding = probe.finding(severity, message, remedy, times=times, seconds=seconds)
    return finding if site is None else msgspec.structs.replace(finding, site=site)
