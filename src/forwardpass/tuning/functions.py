"""The user's own functions: `f(predictions, labels)`, a number or one value a row."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from forwardpass.errors import UsageError, contained, nearest, said
from forwardpass.nouns.budgets import Keep
from forwardpass.reading.pyfiles import import_file
from forwardpass.tensors.arrays import Values, is_tensor, taken, to_numpy
from forwardpass.tuning.metrics import metric

_Floats = np.ndarray[Any, np.dtype[np.float64]]


class MetricError(UsageError):
    """A function of the user's raised, or gave something else than numbers, of a candidate."""


class OwnFunction:
    """A function of the user's, called and checked.

    Args:
        keep: the line that names it. Its file is imported, which runs it.

    Raises UsageError for a name that is not there or cannot be called, LoadError where the file
    cannot be imported.
    """

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        if keep.function is not None:
            self._function: Any = keep.function
            return
        path, _, name = keep.metric.rpartition(":")
        names = vars(import_file(path))
        if name not in names:
            known = [key for key, value in names.items() if callable(value) and key[0] != "_"]
            raise UsageError(
                f"--keep {str(keep)!r}: {path} has no name {name!r}; {nearest(name, known)}"
            )
        self._function = names[name]
        if not callable(self._function):
            raise UsageError(
                f"--keep {str(keep)!r}: {name} is a {type(self._function).__name__}; expected a "
                "function of the predictions, a dict of arrays, and the labels"
            )

    def __call__(
        self, outputs: Mapping[str, Values], truths: np.ndarray[Any, Any] | None, whose: str
    ) -> _Floats:
        """What it says of outputs: float64 [] or [rows].

        Args:
            truths: the labels, one a row, where there are any.
            whose: the outputs are, for the message.

        Raises MetricError where it raises, or gives something else.
        """
        predictions = {path: _given(values) for path, values in outputs.items()}
        rows = len(next(iter(outputs.values()), ()))
        call = f"{self.keep.metric}(predictions, labels) of {whose}"
        try:
            with contained():
                came = self._function(predictions, truths)
        except Exception as error:
            raise MetricError(
                f"--keep {str(self.keep)!r}: {call} raised {said(error)}; it was called with "
                f"{', '.join(predictions)} of {rows:,} rows and "
                + ("no labels, which --label COLUMN gives" if truths is None else "labels")
            ) from error
        return self._checked(came, rows, call)

    def _checked(self, came: Any, rows: int, call: str) -> _Floats:
        try:
            found = np.asarray(to_numpy(came) if is_tensor(came) else came)
            if found.dtype == object:
                raise TypeError
            values = found.astype(np.float64)
        except (TypeError, ValueError):
            shown = f"a {type(came).__name__}"
            raise MetricError(
                f"--keep {str(self.keep)!r}: {call} gave {shown}; expected a number, or one number "
                f"a row ({rows:,})"
            ) from None
        if values.shape in ((), (rows,)):
            return values
        raise MetricError(
            f"--keep {str(self.keep)!r}: {call} gave numbers of shape {list(values.shape)}; "
            f"expected one number, or one a row, [{rows}]"
        )


def require_answerable(keeps: Iterable[Keep], is_labelled: bool) -> None:
    """Find the functions of a budget before anything is computed.

    Raises UsageError for one that is not there, and for a metric that needs labels where none are
    given; LoadError where a file cannot be imported.
    """
    for keep in keeps:
        if is_own(keep):
            OwnFunction(keep)
        elif metric(keep.metric).NEEDS_LABELS and not is_labelled:
            raise UsageError(
                f"--keep {str(keep)!r} needs labels: name their column, --label COLUMN"
            )


def is_own(keep: Keep) -> bool:
    """Whether a line is about a function of the user's."""
    return keep.function is not None or ":" in keep.metric


def identities(keeps: Iterable[Keep]) -> Iterator[str]:
    """What tells functions of the user's from others of their names: the bytes of their files. One
    that Python was given is like none before."""
    for keep in keeps:
        if keep.function is not None:
            yield uuid4().hex
        elif is_own(keep):
            path = Path(keep.metric.rpartition(":")[0])
            yield hashlib.sha256(path.read_bytes()).hexdigest()


def of_rows(outputs: Mapping[str, Values], places: np.ndarray[Any, Any]) -> dict[str, Values]:
    """The outputs of the rows at these places."""
    return {path: taken(values, places) for path, values in outputs.items()}


def worst_if_nan(value: float, sign: str) -> float:
    """A number that is none is as bad as can be."""
    if not math.isnan(value):
        return value
    return -math.inf if sign == ">=" else math.inf


def _given(values: Values) -> Any:
    if isinstance(values, list):
        return [to_numpy(value) for value in values]
    return to_numpy(values)
