"""Agreement: whether rows come out of a batch as they come out alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import numpy as np

from forwardpass.errors import said
from forwardpass.profiling.contenders import Contender
from forwardpass.tensors.arrays import Array, is_inexact, spelled
from forwardpass.tensors.distances import apart, share, tolerance
from forwardpass.tensors.trees import flatten

_NAMED: Final = 4
"""Sizes of batches that are named one by one."""


class Agreement:
    """Compares the first and the last row of batches with the same rows alone.

    Outputs that change from call to call, and those without an axis as long as the batch, tell
    nothing.
    """

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._far: dict[int, float] = {}
        self._first: Mapping[str, Array] = {}
        self._why = ""
        call = contender.call(1)
        try:
            self._first, again = _named(call()), _named(call())
        except Exception as error:  # noqa: BLE001 - some models refuse a single row; it is said
            self._why = f"one row alone raised {said(error)}"
            return
        facts = contender.engine.replicas[0].facts
        dtypes = [facts.dtype, *map(spelled, self._first.values())]
        self._allowed = max(tolerance(dtypes), facts.rounding)
        if _distance(self._first, again) > self._allowed:
            self._why = "its outputs change from call to call"

    def see(self, rows: int, outputs: Any) -> None:
        """Compare what a batch of so many rows came out as."""
        if self._why or rows < 2:
            return
        found, far = _named(outputs), 0.0
        for place in (0, rows - 1):
            alone = self._first if place == 0 else _named(self._contender.call(1, first=place)())
            far = max(far, _distance(_row(found, alone, rows, place), alone))
        if far > self._allowed:
            self._far[rows] = far

    @property
    def notes(self) -> tuple[str, ...]:
        """What was seen, a sentence each; nothing where all is well."""
        if self._why:
            return (f"{self._why}, so outputs of batches were not compared with those of one row",)
        if not self._far:
            return ()
        several = list(self._far)
        if len(several) == 1:
            where = f"{several[0]:,}"
        elif len(several) > _NAMED:
            where = f"{len(several)} sizes from {several[0]:,} to {several[-1]:,}"
        else:
            where = f"{', '.join(f'{rows:,}' for rows in several[:-1])} and {several[-1]:,}"
        return (
            f"at {where} rows the outputs differ by {share(max(self._far.values()))} from those of "
            f"one row alone (rounding accounts for {self._allowed:.0e}): see `fwd check`, "
            "batch-variance",
        )


def _named(outputs: Any) -> Mapping[str, Array]:
    """The arrays that came out, by path: those that are rounded, where there are any, since whole
    numbers that are made of them may tip over."""
    found = cast("Mapping[str, Any]", outputs) if isinstance(outputs, Mapping) else {}
    if not found or not all(isinstance(value, np.ndarray) for value in found.values()):
        found = flatten(outputs)
    return {path: value for path, value in found.items() if is_inexact(value)} or found


def _row(
    found: Mapping[str, Array], alone: Mapping[str, Array], rows: int, place: int
) -> dict[str, Array]:
    """One row of each output that has an axis as long as the batch, all others as of one row."""
    taken: dict[str, Array] = {}
    for path, one in alone.items():
        value = found.get(path)
        if value is None or len(value.shape) != len(one.shape):
            continue
        pairs = list(zip(value.shape, one.shape, strict=True))
        differing = [axis for axis, pair in enumerate(pairs) if pair[0] != pair[1]]
        if len(differing) == 1 and pairs[differing[0]] == (rows, 1):
            where = (slice(None),) * differing[0] + (slice(place, place + 1),)
            taken[path] = value[where]
    return taken


def _distance(one: Mapping[str, Array], other: Mapping[str, Array]) -> float:
    """The largest relative distance over the outputs that both have."""
    return max((apart(one[path], other[path]) for path in one if path in other), default=0.0)
