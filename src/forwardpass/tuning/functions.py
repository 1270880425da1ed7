"""The user's own functions: `f(predictions, labels)`, a number or one value a row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from forwardpass.errors import UsageError, contained, nearest, said
from forwardpass.nouns.budgets import Keep
from forwardpass.reading.pyfiles import import_file
from forwardpass.tensors.arrays import Values, is_tensor, taken, to_numpy

_Floats = np.ndarray[Any, np.dtype[np.float64]]


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

        Raises UsageError where it raises, or gives something else.
        """
        predictions = {path: _given(values) for path, values in outputs.items()}
        rows = len(next(iter(outputs.values()), ()))
        call = f"{self.keep.metric}(predictions, labels) of {whose}"
        try:
            with contained():
                came = self._function(predictions, truths)
        except Exception as error:
            raise UsageError(
                f"--keep {str(self.keep)!r}: {call} raised {said(error)}; it was called with "
                f"{', '.join(predictions)} of {rows:,} rows and "
                + ("no labels" if truths is None else "labels")
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
            raise UsageError(
                f"--keep {str(self.keep)!r}: {call} gave {shown}; expected a number, or one number "
                f"a row ({rows:,})"
            ) from None
        if values.shape in ((), (rows,)):
            return values
        raise UsageError(
            f"--keep {str(self.keep)!r}: {call} gave numbers of shape {list(values.shape)}; "
            f"expected one number, or one a row, [{rows}]"
        )


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
