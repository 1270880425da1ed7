"""What rounding accounts for: the distance of a pass from itself in float64."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from forwardpass.comparing.alignment import align
from forwardpass.comparing.errors import error
from forwardpass.comparing.forcing import made
from forwardpass.nouns.records import Record
from forwardpass.recording.observing import Watching
from forwardpass.recording.passes import Pass
from forwardpass.recording.verb import recorded
from forwardpass.tensors.dtypes import TORCH

_MARGIN = 10
"""Times the distance from float64: another kernel may round that much worse than this one did."""


@dataclass(frozen=True)
class Tolerances:
    """Relative errors that rounding accounts for, by serial of a's values.

    Attributes:
        total: of a value as the pass ran, the rounding of all calls before it included.
        alone: of what one call makes of given numbers.
        said: how they were found, in a sentence.
    """

    said: str
    total: Mapping[int, float] = field(default_factory=dict[int, float])
    alone: Mapping[int, float] = field(default_factory=dict[int, float])

    def of_total(self, record: Record, serial: int) -> float:
        """What a value may be off."""
        return _MARGIN * max(self.total.get(serial, 0.0), unit(record, serial))

    def of_call(self, record: Record, serial: int) -> float:
        """What the call that made a value may add."""
        return _MARGIN * max(self.alone.get(serial, 0.0), unit(record, serial))


def tolerances(a: Record, value_bytes: int) -> Tolerances:
    """Run a's pass in float64, free and forced onto a's numbers, and measure the distances.

    Where that cannot be, the unit of rounding counts, and it is said why.
    """
    if a.live is None:
        return _unmeasured("a record has no pass to run in float64")
    this: Pass = a.live.this
    numbers = a.tensors
    try:
        wide = doubled(this)
        watching = Watching(False, "all", value_bytes)
        b = recorded(a.live.forward, wide, (), watching)
        alignment = align(a, b)
        targets = {its: numbers[s] for its, s in alignment.values.items() if s in numbers}
        alone = made(alignment, targets, wide)
    except Exception as reason:  # noqa: BLE001 - not every model runs in float64; it is said
        why = _short(reason.__cause__ or reason)
        return _unmeasured(f"in float64 it cannot run ({why})")
    total = {
        mine: error(b.tensors[its], numbers[mine]).relative
        for its, mine in alignment.values.items()
        if its in b.tensors and mine in numbers
    }
    return Tolerances(
        f"{_MARGIN} × the distance from the same pass in float64",
        total,
        {alignment.values[its]: off.relative for its, off in alone.errors.items()},
    )


def _unmeasured(why: str) -> Tolerances:
    return Tolerances(f"{_MARGIN} × the unit of rounding: {why}")


def doubled(this: Pass) -> Pass:
    """The pass with a copy of its module, and its floating inputs, in float64."""
    named = this.named(this.arguments, this.keywords)
    wide = {path: t.double() for path, t in named.items() if t.is_floating_point()}
    twin: Any = copy.deepcopy(this.module).double()
    return replace(this.given(wide), module=twin, autocast={})


def unit(record: Record, serial: int) -> float:
    """The unit of rounding of a value, 0 for whole numbers."""
    dtype = TORCH.get(record.values[serial].dtype)
    return torch.finfo(dtype).eps if dtype is not None and dtype.is_floating_point else 0.0


def _short(error: BaseException) -> str:
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0][:100]}" if first else type(error).__name__
