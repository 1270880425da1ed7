"""Labels: what the rows should be predicted as, and what outputs predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from forwardpass.errors import UsageError, nearest
from forwardpass.executing.decoding import Decoder, one_a_row
from forwardpass.nouns.models import Model
from forwardpass.nouns.rows import Rows, listed
from forwardpass.tensors.arrays import Array, Values, is_inexact, to_numpy

Label = int | str | None
"""A class by its number or its name; None where a row has none."""
Truths = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of some rows.

    Attributes:
        column: whose values they are. values: one a row, as the column has them; None where a row
            has none.
        model: whose outputs are held against them: what its `decode` says is what it predicts.
    """

    column: str
    values: tuple[Any, ...]
    model: Model

    @property
    def known(self) -> Truths:
        """Which rows have one."""
        return np.array([value is not None for value in self.values], np.bool_)

    @property
    def array(self) -> np.ndarray[Any, Any]:
        """One a row, as functions get them; where rows have none, or lists of other lengths,
        objects, of which those are None."""
        if self.known.all():
            with suppress(ValueError):  # lists of several lengths
                return np.array(self.values)
        found = np.empty(len(self.values), object)
        for place, value in enumerate(self.values):
            found[place] = value
        return found

    @property
    def are_classes(self) -> bool:
        """Whether they are whole numbers, or texts, all of one kind."""
        return not self._strange

    @cached_property
    def classes(self) -> tuple[Label, ...]:
        """The same as classes, by number or by name. Raises UsageError where they are none."""
        if self._strange:
            raise UsageError(f"--label {self.column}: {self._strange}")
        return self.values

    @cached_property
    def _strange(self) -> str:
        """Why they are no classes; empty where they are."""
        numbers = [value for value in self.values if isinstance(value, int)]
        texts = [value for value in self.values if isinstance(value, str)]
        for place, value in enumerate(self.values):
            if value is not None and not isinstance(value, int | str):
                return (
                    f"row {place} has {value!r:.60}, a {type(value).__name__}; a label of accuracy "
                    "is a whole number or a text: write a function of the predictions and the "
                    "labels, --keep FILE.py:NAME"
                )
        if numbers and texts:
            return (
                f"some labels are numbers, such as {numbers[0]}, and others names, such as "
                f"{texts[0]!r}: make them all one of both"
            )
        return ""

    def take(self, places: Sequence[int] | np.ndarray[Any, Any]) -> Labels:
        """Those of the rows at these places, in this order."""
        return Labels(self.column, tuple(self.values[int(p)] for p in places), self.model)

    def right(self, outputs: Mapping[str, Values], baseline: Mapping[str, Values]) -> Truths:
        """Which rows are predicted as their label says; `baseline`: outputs of the same rows, by
        which is told what they mean.

        Raises UsageError where nothing tells what is predicted, and for labels that no prediction
        can be.
        """
        if any(isinstance(value, str) for value in self.classes):
            said, known = self._names(outputs)
        else:
            said, known = self._numbers(outputs, baseline)
        self._possible(known)
        pairs = zip(self.classes, said, strict=True)
        return np.array([label is not None and label == one for label, one in pairs], np.bool_)

    def reading(self, baseline: Mapping[str, Values]) -> str:
        """How an output of one number a row is read as yes or no, in a sentence; empty where no
        output is."""
        found = self._yes(baseline)
        if found is None:
            return ""
        path, above = found
        why = "all lie from 0 to 1, as probabilities do" if above else "not all lie from 0 to 1"
        return f"a row is taken for 1 where {path} is above {above:g}, since {why}"

    def _yes(self, baseline: Mapping[str, Values]) -> tuple[str, float] | None:
        """The output of one number a row that says whether a row is 1 or 0, and above which number
        it says 1; None where there are several classes, or labels are others than 0 and 1."""
        scores = [path for path, values in baseline.items() if _is_score(values)]
        if len(scores) != 1 or any(map(_classes, baseline.values())):
            return None
        if not {value for value in self.classes if value is not None} <= {0, 1}:
            return None
        own = to_numpy(cast("Array", baseline[scores[0]]))
        return scores[0], 0.5 if np.nanmin(own) >= 0 and np.nanmax(own) <= 1 else 0.0

    def _numbers(
        self, outputs: Mapping[str, Values], baseline: Mapping[str, Values]
    ) -> tuple[Sequence[Any], set[Label] | None]:
        """Predicted classes by number, and those that can be."""
        if (yes := self._yes(baseline)) is not None:
            path, above = yes
            own = to_numpy(cast("Array", outputs[path])).reshape(-1)
            return np.where(np.isnan(own), -1, own > above).tolist(), {0, 1}
        found = {path: classes for path, values in outputs.items() if (classes := _classes(values))}
        if len(found) == 1:
            path, count = next(iter(found.items()))
            scores = to_numpy(cast("Array", outputs[path]))
            wide = np.where(np.isnan(scores), -np.inf, scores)
            best = np.where(np.isnan(scores).all(-1), -1, wide.argmax(-1))
            return best.tolist(), set(range(count))
        whole = [path for path, values in outputs.items() if _is_whole(values)]
        if not found and len(whole) == 1:
            return to_numpy(cast("Array", outputs[whole[0]])).reshape(-1).tolist(), None
        what = ", ".join(found or outputs) or "none"
        raise UsageError(
            f"--label {self.column}: labels are numbers of classes, and "
            + ("several outputs are" if found else "no output is")
            + f" scores of classes [rows, classes] ({what}): write a function of the predictions "
            "and the labels, --keep FILE.py:NAME"
        )

    def _names(self, outputs: Mapping[str, Values]) -> tuple[Sequence[Any], set[Label] | None]:
        """Predicted classes by name, and those that can be."""
        if self.model.decode is None:
            raise UsageError(
                f"--label {self.column}: labels are names, and {self.model.name} has no decode, "
                "which would say what its classes are called: give their numbers, or "
                "Model(…, decode=…)"
            )
        count = len(self.values)
        decoded = Decoder(self.model)(outputs, Rows({}, np.arange(count)), np.arange(count))
        columns = {name: one_a_row(values) for name, values in decoded.columns.items()}
        texts = [n for n, values in columns.items() if all(isinstance(v, str) for v in values)]
        if len(texts) != 1:
            what = ", ".join(texts or columns) or "none"
            raise UsageError(
                f"--label {self.column}: labels are names, and decode gives "
                + ("several columns" if texts else "no column")
                + f" of one name a row ({what}): write a function of the predictions and the "
                "labels, --keep FILE.py:NAME"
            )
        said: list[str | None] = [None] * count
        for place, value in zip(decoded.kept, columns[texts[0]], strict=True):
            said[int(place)] = value
        names = getattr(self.model.decode, "labels", None)
        known = {str(name) for name in names} if isinstance(names, list) else None
        return said, cast("set[Label] | None", known)

    def _possible(self, known: set[Label] | None) -> None:
        given = [value for value in self.classes if value is not None]
        strange = [value for value in given if known is not None and value not in known]
        if not strange or known is None:
            return
        first, of = strange[0], len(self.values)
        if isinstance(first, str):
            what = nearest(first, map(str, known))
        else:
            what = f"classes go from 0 to {len(known) - 1}"
        raise UsageError(
            f"--label {self.column}: {len(strange):,} of {of:,} labels are none that the model can "
            f"predict, the first {first!r}; {what}"
        )


def labels_of(rows: Rows, column: str, model: Model) -> Labels:
    """The labels of rows: their column, of which whole numbers are `int`, however they are written.

    Rows whose label is missing (None, NaN, an empty text) have None. Raises UsageError for a column
    that is not there, or of which nothing is there.
    """
    if column not in rows:
        raise UsageError(
            f"--label {column}: there is no such column; {nearest(column, rows.columns)}"
        )
    values = [_plain(value) for value in listed(rows.columns[column])]
    known = [value for value in values if value is not None]
    if not known:
        raise UsageError(f"--label {column}: none of the {len(values):,} rows has a label")
    if all(isinstance(value, int) or _is_integral(value) for value in known):
        values = [None if value is None else int(value) for value in values]
    return Labels(column, tuple(values), model)


def _plain(value: Any) -> Any:
    """A label as Python has it; None for what is missing."""
    if isinstance(value, np.generic):
        value = value.item()
    missing = value is None or (isinstance(value, str) and not value)
    return None if missing or (isinstance(value, float) and value != value) else value


def _is_integral(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def _classes(values: Values) -> int:
    """How many classes each row has a score of; 0 for what are no scores."""
    if isinstance(values, list) or len(values.shape) != 2 or not is_inexact(values):
        return 0
    return int(values.shape[1]) if values.shape[1] > 1 else 0


def _is_score(values: Values) -> bool:
    """Whether each row is one number that is no whole one."""
    if isinstance(values, list) or not is_inexact(values) or not len(values):
        return False
    return tuple(values.shape[1:]) in ((), (1,))


def _is_whole(values: Values) -> bool:
    """Whether each row is one whole number."""
    if isinstance(values, list) or is_inexact(values):
        return False
    return tuple(values.shape[1:]) in ((), (1,))
