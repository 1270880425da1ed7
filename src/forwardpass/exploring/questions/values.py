"""Values: are they healthy? And the numbers themselves, in tiles, which all views ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch

from forwardpass.errors import UsageError
from forwardpass.exploring.asking import PageQuestion
from forwardpass.exploring.changing import UNCHANGED, Changed, change_of
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.health import Health, Vital, surveyed
from forwardpass.exploring.predictions import PagePrediction, Settled
from forwardpass.exploring.tiles import SIDE, Tile, fitted, window
from forwardpass.exploring.unkept import UnkeptError, call_bytes
from forwardpass.exploring.views import Predictions, View
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.records import KeptRecord, Record
from forwardpass.recording.recordings import Recording
from forwardpass.tensors.modules import held_by

_SHARES: Final = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
_CHOICES: Final = ("next to none", "about 10 %", "about 25 %", "about 50 %", "about 75 %",
                   "nearly all")  # fmt: skip


def cells(
    exploration: Exploration, steps: Steps, *, value: int, row: int = 0,
    change: Changed = UNCHANGED, plane: int = 0, top: int = 0, left: int = 0,
    height: int = SIDE, width: int = SIDE, down: int = 1, across: int = 1,
) -> Tile:  # fmt: skip
    """A window of one plane of a value of the pass, by its serial."""
    tensor, dtype = _numbers(exploration, value, row, change)
    return window(tensor, dtype, plane, top, left, height, width, down, across)


def fit(
    exploration: Exploration, steps: Steps, *, value: int, row: int = 0,
    change: Changed = UNCHANGED, first: int | None = None,
) -> Tile:  # fmt: skip
    """A value of the pass as a whole: its strongest planes, or those from the `first` on."""
    return fitted(*_numbers(exploration, value, row, change), first)


def _numbers(
    exploration: Exploration, value: int, row: int, change: Changed
) -> tuple[torch.Tensor, str]:
    record = exploration.record((row,), change_of(change), values=True)
    if lacking := record.lacks("numbers"):
        raise UsageError(lacking)
    if not 0 <= value < len(record.values):
        raise UsageError(f"value {value}: the record has {len(record.values):,}")
    found = _held(record, value)
    if found is None:
        one = record.values[value]
        if one.origin in ("parameter", "buffer"):
            raise UsageError(f"a record from a file does not hold the numbers of {one.name}")
        needed = call_bytes(record)
        if exploration.given is not None and needed > exploration.value_bytes:
            raise UnkeptError(
                f"{one} was not recorded: the values of this pass take {needed / 1e6:,.4g} MB, and "
                f"{exploration.value_bytes / 1e6:,.4g} MB are kept unasked"
            )
        raise UsageError(f"value {value}, {one}, was not kept: it is sparse, nested or quantized")
    return found, record.values[value].dtype


def _held(record: Record, serial: int) -> torch.Tensor | None:
    """A value that the record kept, or that the module holds."""
    value = record.values[serial]
    if isinstance(record, KeptRecord) and serial in record.tensors:
        return record.tensors[serial]
    if isinstance(record, Recording) and value.origin in ("parameter", "buffer"):
        return held_by(record.this.module).get(value.name)
    return None


def health(exploration: Exploration, steps: Steps) -> Health:
    """What all numbers of all rows look like."""
    return exploration.once("health", 0, lambda: surveyed(exploration, steps))


def predictions(exploration: Exploration, steps: Steps, *, row: int = 0) -> Predictions:
    """What is asked before the zeros are shown."""
    if exploration.given is None or exploration.record().failed is not None:
        return Predictions(())
    if exploration.record().lacks("numbers"):
        return Predictions(())
    first = health(exploration, steps).first
    if first is None:
        return Predictions(())
    question = f"{_where(first)}, what share of all numbers is exactly zero?"
    return Predictions((PagePrediction("zeros", question, _CHOICES, ("zeros",)),))


def settle(exploration: Exploration, steps: Steps, *, id: str, row: int = 0) -> Settled:
    """Counted over all rows."""
    if id != "zeros":
        raise UsageError(f"Values asks nothing that is called {id!r:.40}")
    first = health(exploration, steps).first
    if first is None:
        raise UsageError("nothing that comes out of the pass, or of an activation, is a number")
    counted = first.after or first.before
    share = counted.zeros / counted.count
    near = min(range(len(_SHARES)), key=lambda n: abs(_SHARES[n] - share))
    why = (
        f"{counted.zeros:,} of {counted.count:,} numbers, over {first.rows:,} "
        f"row{'s' * (first.rows != 1)}. A zero costs as much to compute as any other number."
    )
    return Settled((near,), f"{share:.1%}".replace("%", " %"), why)


def _where(first: Vital) -> str:
    if first.after is None:
        return f"In {first.name}"
    return f"After {first.path} {first.kind}" if first.path else f"After {first.name}"


def exported(exploration: Exploration) -> Iterator[PageQuestion]:
    """What an exported page holds of it."""
    yield PageQuestion("values.predictions", {"row": 0})
    yield PageQuestion("values.health", {})
    for each in predictions(exploration, Steps()).predictions:
        yield PageQuestion("values.settle", {"id": each.id, "row": 0})


VIEW = View("values", 4, "Values", "Are the values healthy?")
ASKED = (cells, fit, health, predictions, settle)
