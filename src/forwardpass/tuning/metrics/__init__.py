"""The metrics, one file each: the folder is the list, and a file's name is its metric's name.

A file says what its values are,

    LARGER: Final = True            whether larger is better
    RANGE: Final = (-1.0, 1.0)      the least and the greatest value a row can have
    PERFECT: Final = 1.0            of outputs that equal the baseline's
    SHARE: Final = False            whether a row's value is a share of what may go wrong in it; the
                                    bound of a mean then counts, instead of measuring its spread
    STATISTICS: Final = ("mean", "p1", "p99", "min", "max")
    DEFAULT: Final = "mean"         the statistic of a line that names none
    NEEDS_LABELS: Final = False

and holds

    def refused(values: Values) -> str
    def rows(baseline: Outputs, came: Outputs, labels: Labels | None) -> Floats

The first says why it says nothing of an output, as the end of a sentence that begins with its name,
and is empty where it does. The second gives float64 [rows], for outputs by name in the order of the
rows: of several outputs, a row has its worst. A number that is not finite where the baseline's is,
and a row of another shape, is the worst that there is; no row is left out. A metric that needs
labels judges predictions by themselves: it gives the value of `came`, and the baseline's own is
`rows(baseline, baseline, labels)`. It raises UsageError where it says nothing of any output.
"""

from __future__ import annotations

import sys
from typing import Protocol, cast

from forwardpass.errors import GrammarError, nearest
from forwardpass.nouns.budgets import GRAMMAR, Keep
from forwardpass.nouns.folders import names, plugin
from forwardpass.tensors.arrays import Values
from forwardpass.tuning.labels import Labels
from forwardpass.tuning.metrics._rows import Floats, Outputs


class Metric(Protocol):
    """What a file of this folder is."""

    LARGER: bool
    RANGE: tuple[float, float]
    PERFECT: float
    SHARE: bool
    STATISTICS: tuple[str, ...]
    DEFAULT: str
    NEEDS_LABELS: bool

    @staticmethod
    def refused(values: Values) -> str: ...
    @staticmethod
    def rows(baseline: Outputs, came: Outputs, labels: Labels | None) -> Floats: ...


def metric(name: str) -> Metric:
    """The metric of that name."""
    return cast("Metric", plugin(sys.modules[__name__], name))


def checked(keep: Keep, text: str) -> Keep:
    """A line of a metric of this folder that can be kept. Raises GrammarError."""
    known = names(sys.modules[__name__])
    if keep.metric not in known:
        raise GrammarError(
            f"--keep {text!r}: there is no metric {keep.metric!r}; {nearest(keep.metric, known)}, "
            f"or a function of yours, FILE.py:NAME; expected {GRAMMAR}"
        )
    its = metric(keep.metric)
    if keep.statistic and keep.statistic not in its.STATISTICS:
        raise GrammarError(
            f"--keep {text!r}: {keep.metric} has no statistic {keep.statistic!r}; "
            + nearest(keep.statistic, its.STATISTICS)
        )
    if (keep.sign == ">=") != its.LARGER:
        better, sign = ("larger", ">=") if its.LARGER else ("smaller", "<=")
        raise GrammarError(
            f"--keep {text!r} asks {keep.metric} to be bad: {better} is better; write {sign}"
        )
    low, high = its.RANGE
    if not keep.relative and not low <= keep.limit <= high:
        raise GrammarError(
            f"--keep {text!r}: {keep.metric} is never {'above' if keep.limit > high else 'below'} "
            f"{high if keep.limit > high else low:g}, so that this says nothing"
        )
    return keep
