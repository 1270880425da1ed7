"""What a manifest says a run is, and whether another run may go on with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from forwardpass.errors import ResumeError
from forwardpass.executing.batches import Early, Indices
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.machines import Machine
from forwardpass.preparing.identity import digest
from forwardpass.preparing.recipes import Ready
from forwardpass.reading import Source
from forwardpass.running.journals import Header, Spans
from forwardpass.running.options import Options

_BUILT = ("library", "threads", "devices")
"""Of a machine: what is known once the Forward is built."""
_UNSTEADY = {"memory_bytes", *_BUILT}
"""Of a machine: what decides no value, and what is known once the Forward is built."""


class Identity:
    """What decides every value of a run: Forward, data, machine, options."""

    def __init__(self, forward: Forward, source: Source, options: Options) -> None:
        self.forward = forward
        # now, before a row is encoded: an encoder may remember what it has seen
        self.sha256 = digest(forward)
        self.source = source
        self.options = options

    def header(self, ready: Ready, early: Sequence[Early]) -> Header:
        """The first line of the manifest."""
        return Header(
            forward=str(self.forward),
            data=self.source.identity(),
            options=self.options.to_json(),
            early=tuple(_spans(batch.positions) for batch in early),
            **msgspec.structs.asdict(ready),
        )

    def require(self, header: Header, machine: Machine, place: str) -> None:
        """Raise ResumeError, saying what differs, unless `header` began this very run, on such a
        machine."""
        differences: list[str] = []
        if header.sha256 != self.sha256:
            now = str(self.forward)
            same = header.forward == now
            differences.append(
                f"the Forward has other weights, code or signature than {now!r} had then"
                if same
                else f"the Forward was {header.forward!r}, is {now!r}"
            )
        then, here = _steady(header.machine), _steady(machine)
        differences += _differences("machine", then, here)
        differences += _differences("options", header.options, self.options.to_json())
        data = self.source.identity()
        if data != header.data:
            differences.append(f"the data: {_difference(header.data, data)}")
        _refuse(differences, place)

    def require_device(self, header: Header, here: Machine, device: str, place: str) -> None:
        """The same for what is known once the Forward is built: what computes it."""
        then = header.machine
        differences = _differences(
            "machine",
            {"device": header.device, **{name: getattr(then, name) for name in _BUILT}},
            {"device": device, **{name: getattr(here, name) for name in _BUILT}},
        )
        _refuse(differences, place)


def early(header: Header) -> list[Early]:
    """The batches that stand in a header; to be computed as long as no shard is committed."""
    return [
        Early(np.concatenate([np.arange(start, stop) for start, stop in spans]))
        for spans in header.early
    ]


def _spans(positions: Indices) -> Spans:
    """Ascending numbers as stretches: start … stop - 1."""
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    return tuple((int(run[0]), int(run[-1]) + 1) for run in np.split(positions, breaks))


def _steady(of: Machine) -> dict[str, Any]:
    known = msgspec.structs.asdict(of)
    return {name: value for name, value in known.items() if name not in _UNSTEADY}


def _differences(kind: str, then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{kind}: {name} was {then.get(name)!r}, is {value!r}"
        for name, value in now.items()
        if then.get(name) != value
    ]


def _refuse(differences: list[str], place: str) -> None:
    if differences:
        raise ResumeError(
            f"{place} was begun by another run, and going on would mix their results. "
            f"What differs: {'; '.join(differences)}. Run it as it was, or give another folder"
        )


def _difference(then: list[dict[str, Any]], now: list[dict[str, Any]]) -> str:
    """The first thing in which two identities of data differ."""
    if len(then) != len(now):
        return f"{len(then)} files then, {len(now)} now"
    for old, new in zip(then, now, strict=True):
        for name in {**old, **new}:
            if old.get(name) != new.get(name):
                where = f"{new['path']}: " if "path" in new and name != "path" else ""
                return f"{where}{name} was {old.get(name)!r}, is {new.get(name)!r}"
    return "their form"
