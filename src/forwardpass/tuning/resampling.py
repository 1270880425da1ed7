"""How far other rows may move one number over all, as a function of the user's gives it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from forwardpass.errors import UsageError
from forwardpass.tensors.arrays import Values
from forwardpass.tuning.bounds import FEWEST, quantile_of_normal
from forwardpass.tuning.functions import OwnFunction, of_rows, worst_if_nan

Outputs = Mapping[str, Values]
Truths = np.ndarray[Any, Any] | None
_DRAWN, _SWAPPED = 100, 10
"""Calls of the function; the spread of so many draws is known to 7 %."""
_UNSEEN: Final = 3
"""Rows: about so many of any number of rows may be others than all that were seen, at 95 %."""


class Resampled(NamedTuple):
    """A number over `rows` rows, with the baseline's own subtracted where a line is relative.

    Its bound is that of the bootstrap (Efron, 1979), its spread over rows that are drawn again; and
    what it becomes where three rows have the outputs of others, whichever is further out: a number
    that no draw moves is not proved by that.
    """

    value: float
    spread: float
    least: float
    most: float
    rows: int

    def bound(self, risk: float, lower: bool) -> float | None:
        if self.rows < FEWEST:
            return None
        reach = -quantile_of_normal(risk) * self.spread
        if not math.isfinite(self.value):
            return self.value
        if not math.isfinite(reach):
            return -math.inf if lower else math.inf
        return min(self.value - reach, self.least) if lower else max(self.value + reach, self.most)

    def of(self, rows: int) -> Resampled:
        """Its spread falls with the root of the rows, and what three of them move with their
        number."""
        times = self.rows / rows
        return Resampled(
            self.value, self.spread * math.sqrt(times),
            self.value + (self.least - self.value) * times,
            self.value + (self.most - self.value) * times, rows,
        )  # fmt: skip


def resampled(
    function: OwnFunction, baseline: Outputs, came: Outputs, truths: Truths, value: float
) -> Resampled:
    """Call the function on rows drawn again, and with the outputs of some rows exchanged.

    Args:
        value: of all rows, as `Resampled` has it.

    Raises UsageError where it raises, or gives one number a row.
    """
    keep, rows, draw = function.keep, len(next(iter(came.values()))), np.random.default_rng(0)

    def off(ours: Outputs, its: Outputs, truths: Truths, how: str) -> float:
        number = _one(function, its, truths, f"the candidate, {how}")
        if not keep.relative:
            return number
        return number - _one(function, ours, truths, f"the baseline, {how}")

    drawn: list[float] = []
    swapped = [value]
    if rows >= FEWEST:
        for _ in range(_DRAWN):
            places = draw.integers(0, rows, rows)
            ours = of_rows(baseline, places) if keep.relative else {}
            its, those = of_rows(came, places), truths if truths is None else truths[places]
            drawn.append(off(ours, its, those, "rows drawn again"))
        for _ in range(_SWAPPED):
            places = np.arange(rows)
            places[draw.choice(rows, _UNSEEN, replace=False)] = draw.integers(0, rows, _UNSEEN)
            swapped.append(off(baseline, of_rows(came, places), truths, "rows exchanged"))
    with np.errstate(invalid="ignore"):
        spread = float(np.std(drawn, ddof=1)) if drawn else math.inf
    return Resampled(value, spread, min(swapped), max(swapped), rows)


def _one(function: OwnFunction, outputs: Outputs, truths: Truths, whose: str) -> float:
    number, keep = function(outputs, truths, whose), function.keep
    if number.ndim:
        raise UsageError(f"--keep {str(keep)!r}: {keep.metric} gave one number, then one a row")
    return worst_if_nan(float(number), keep.sign)
