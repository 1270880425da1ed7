"""What rounding accounts for: the distance of a pass from itself in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import torch

from forwardpass.comparing.alignment import align
from forwardpass.comparing.forcing import made
from forwardpass.nouns.records import KeptRecord, Record
from forwardpass.probing.changes import Change
from forwardpass.probing.probes import Probe
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.dtypes import TORCH

_MARGIN = 10
"""Times the distance from float64: another kernel may round that much worse than this one did."""
_WIDE: Final = Change(dtype=torch.float64)
_LEAST = 2
"""Units of rounding, where a's own numbers happen to be exact."""


@dataclass(frozen=True)
class Tolerances:
    """Relative errors that rounding accounts for, by serial of a's values.

    Attributes:
        total: of a value as the pass ran, the rounding of all calls before it included.
        alone: of what one call makes of given numbers.
        units: units of rounding that it accounts for at least.
        said: how they were found, in a sentence.
    """

    said: str
    units: int
    total: Mapping[int, float] = field(default_factory=dict[int, float])
    alone: Mapping[int, float] = field(default_factory=dict[int, float])

    def of_total(self, record: Record, serial: int) -> float:
        """What a value may be off."""
        return max(_MARGIN * self.total.get(serial, 0.0), self.units * unit(record, serial))

    def of_call(self, record: Record, serial: int) -> float:
        """What the call that made a value may add."""
        return max(_MARGIN * self.alone.get(serial, 0.0), self.units * unit(record, serial))


def tolerances(a: KeptRecord) -> Tolerances:
    """Run a's pass in float64, free and forced onto a's numbers, and measure the distances.

    Free it is but for random numbers, which would be others. Where a pass cannot run in float64,
    the unit of rounding counts, and it is said why.
    """
    if not isinstance(a, Recording):
        return unmeasured("a record has no pass to run in float64")
    try:
        probe = Probe(a)
        b = probe.recording(_WIDE, values=False)
        alignment = align(a, b)
        random = {s for call in b.calls if call.kind == "random" for s in call.outputs}
        targets = {its: a.tensors[s] for its, s in alignment.values.items() if s in a.tensors}
        total = made(alignment, targets, probe, _WIDE, forced=random.intersection(targets))
        alone = made(alignment, targets, probe, _WIDE)
    except Exception as reason:  # noqa: BLE001 - not every model runs in float64; it is said
        why = _short(reason.__cause__ or reason)
        return unmeasured(f"in float64 it cannot run ({why})")
    return Tolerances(
        f"{_MARGIN} × the distance from the same pass in float64, or {_LEAST} units of rounding",
        _LEAST,
        {alignment.values[its]: off.relative for its, off in total.errors.items()},
        {alignment.values[its]: off.relative for its, off in alone.errors.items()},
    )


def unmeasured(why: str) -> Tolerances:
    """What the unit of rounding accounts for, where it is not measured, and why not."""
    return Tolerances(f"{_MARGIN} × the unit of rounding: {why}", _MARGIN)


def of_artefact(
    rounding: Mapping[str, float], outputs: Mapping[str, torch.Tensor]
) -> tuple[str, dict[str, float]]:
    """How tolerances of an artefact's outputs were found, and what they are, by path.

    Args:
        rounding: by output, how far the pass was from itself in float64 when it was exported.
    """
    units, told = _LEAST, (
        f"{_MARGIN} × the distance from float64 when it was exported, or {_LEAST} units of rounding"
    )  # fmt: skip
    if not rounding:
        floor = unmeasured("nothing was measured in float64 when it was exported")
        units, told = floor.units, floor.said
    return told, {
        path: max(_MARGIN * rounding.get(path, 0.0), units * _eps(value.dtype))
        for path, value in outputs.items()
    }


def unit(record: Record, serial: int) -> float:
    """The unit of rounding of a value, 0 for whole numbers."""
    return _eps(TORCH.get(record.values[serial].dtype))


def _eps(dtype: torch.dtype | None) -> float:
    if dtype is None or not (dtype.is_floating_point or dtype.is_complex):
        return 0.0
    return torch.finfo(dtype).eps


def _short(error: BaseException) -> str:
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0][:100]}" if first else type(error).__name__
