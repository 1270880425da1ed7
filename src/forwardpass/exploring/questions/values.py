"""Values: are they healthy? And the numbers themselves, in tiles, which all views ask for."""

from __future__ import annotations

from forwardpass.errors import UsageError
from forwardpass.exploring.changing import UNCHANGED, Changed, change_of
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.tiles import SIDE, Tile, tile
from forwardpass.exploring.views import Predictions, View
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.records import KeptRecord


def cells(
    exploration: Exploration, steps: Steps, *, value: int, row: int = 0,
    change: Changed = UNCHANGED, plane: int = 0, top: int = 0, left: int = 0,
    height: int = SIDE, width: int = SIDE, step: int = 1,
) -> Tile:  # fmt: skip
    """Numbers of a value of the pass, by its serial."""
    record = exploration.record((row,), change_of(change), values=True)
    if not 0 <= value < len(record.values):
        raise UsageError(f"value {value}: the record has {len(record.values):,}")
    there = record.tensors.get(value) if isinstance(record, KeptRecord) else None
    if there is None:
        raise UsageError(f"value {value}, {record.values[value]}, was not kept")
    return tile(there, record.values[value].dtype, plane, top, left, height, width, step)


def predictions(exploration: Exploration, steps: Steps, *, row: int = 0) -> Predictions:
    """What is asked before the zeros are shown."""
    return Predictions(())


VIEW = View("values", 4, "Values", "Are the values healthy?")
ASKED = (cells, predictions)
