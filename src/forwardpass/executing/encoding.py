"""Rows → Block: encode many rows at once, check each against the signature, keep the good ones."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from forwardpass.errors import DataError, UsageError, contained, nearest, said
from forwardpass.executing.deaths import Marks, Seam
from forwardpass.executing.fits import require_fit
from forwardpass.executing.salvaging import salvage
from forwardpass.nouns.models import Encoded, Model
from forwardpass.nouns.rows import Column, Failure, MissingColumn, Rows, is_numbers
from forwardpass.nouns.signatures import Axis, Input, Signature
from forwardpass.tensors.arrays import NUMPY, spelled
from forwardpass.tensors.blocks import Block, Numbers, as_values, concatenated
from forwardpass.tensors.items import Items, joined_items

Encodings = Block | Items
_NUMBER = re.compile(r"^(Type|Attribute)Error: .*\b(int|float)(8|16|32|64)?\b")


@dataclass(frozen=True)
class EncodedRows:
    """The rows of a block that could be encoded, what they became, and the rows that could not.

    `truncated` marks rows that were cut at a maximum length, bool [rows].
    """

    rows: Rows
    block: Encodings
    truncated: np.ndarray[Any, np.dtype[np.bool_]]
    failures: tuple[Failure, ...]

    def keeping(self, names: Sequence[str]) -> EncodedRows:
        """The same with these columns alone, as they are delivered."""
        columns: dict[str, Column] = {}
        for name in names:
            column = self.rows.delivered(name)
            columns[name] = [None] * len(self.rows) if column is None else column
        return replace(self, rows=Rows(columns, self.rows.positions, self.rows.keys))


class Encoder:
    """Encodes blocks of rows for one model.

    Args:
        model: the model; its signature must be known (see `inferred`) or it has `collate`.
        columns: which column feeds which input, where the names differ; for a model with its own
            encode, the name under which it finds a column.
        marks: where it is noted which rows encode has.
        as_text: what to do so that a column that holds numbers is read as text.
    """

    def __init__(
        self, model: Model, columns: Mapping[str, str] | None = None, marks: Marks | None = None,
        *, as_text: str = "--types COLUMN=text reads a column as text",
    ) -> None:  # fmt: skip
        self.model = model
        self._marks, self._as_text = marks, as_text
        self.columns = dict(columns or {})
        signature = model.signature
        if signature is not None:
            for item in signature.inputs:
                if item.batch_axis is None and not item.derivation:
                    raise UsageError(
                        f"input {item}: it has no batch axis, so rows cannot be stacked: add it"
                    )
            paths = [item.path for item in signature.given]
            for path in self.columns if model.encode is None else ():
                if path not in paths:
                    raise UsageError(f"--columns {path}=…: no such input; {nearest(path, paths)}")

    def __call__(self, rows: Rows) -> EncodedRows:
        """Encode a block. Rows that fail are left out and stand in `failures`, stage "encode".

        Raises DataError where the columns that the inputs need are not there at all.
        """
        if not len(rows):
            return EncodedRows(rows, self._empty(), np.zeros(0, bool), rows.failures)
        if self.model.encode is not None or self.model.collate is not None:
            rows = self._renamed(rows)
        else:
            self._require_columns(rows)
        pieces: list[tuple[slice, Encodings, frozenset[int]]] = []
        failures = list(rows.failures)
        missing: MissingColumn | None = None
        seam = Seam(self._marks, "encode", rows.positions) if self._marks else None
        for start, stop, result in salvage(
            lambda a, b: self._encoded(rows, a, b), 0, len(rows), seam
        ):
            if isinstance(result, Exception):
                if isinstance(result, MissingColumn):
                    missing = result
                error = said(result)
                error += self._hint(error, rows)
                failures.append(
                    Failure(rows.key(start), "encode", error, int(rows.positions[start]))
                )
            else:
                pieces.append((slice(start, stop), *result))
        if failures and not pieces:
            self._require_asked(rows, missing)
        truncated = np.zeros(len(rows), bool)
        good = np.zeros(len(rows), bool)
        for span, _, cut in pieces:
            good[span] = True
            if cut:
                truncated[[span.start + index for index in cut]] = True
        kept = rows if good.all() else rows.take(np.flatnonzero(good))
        blocks = [block for _, block, _ in pieces]
        failures.sort(key=lambda failure: failure.position)
        return EncodedRows(
            replace(kept, failures=()) if kept.failures else kept,
            together(blocks) if blocks else self._empty(),
            truncated[good],
            tuple(failures),
        )

    def _encoded(self, rows: Rows, start: int, stop: int) -> tuple[Encodings, frozenset[int]]:
        with contained():
            return self._made(rows, start, stop)

    def _made(self, rows: Rows, start: int, stop: int) -> tuple[Encodings, frozenset[int]]:
        part = rows if stop - start == len(rows) else rows.take(slice(start, stop))
        model = self.model
        if model.collate is not None:
            items = [dict(row) for row in part] if model.encode is None else [*model.encode(part)]
            if len(items) != len(part):
                raise ValueError(f"encode returned {len(items)} items for {len(part)} rows")
            sizes = [1 if model.size is None else int(model.size(item)) for item in items]
            return Items(items, np.array(sizes, dtype=np.int64).reshape(-1, 1)), frozenset()
        assert model.signature is not None
        arrays = self._taken(part) if model.encode is None else model.encode(part)
        cut = arrays.truncated if isinstance(arrays, Encoded) else frozenset[int]()
        given = model.signature.given
        if not isinstance(arrays, Mapping):
            if len(given) != 1:
                raise TypeError(f"encode must return a dict of {', '.join(i.path for i in given)}")
            arrays = {given[0].path: arrays}
        paths = [item.path for item in given]
        unknown = next((path for path in arrays if path not in paths), None)
        if unknown is not None:
            raise ValueError(
                f"encode returned {unknown!r}, which is no input; {nearest(unknown, paths)}"
            )
        block, more = checked(model.signature, arrays, len(part))
        return block, cut | more

    def _renamed(self, rows: Rows) -> Rows:
        """The rows with the columns that --columns names under the names that encode reads."""
        for column in self.columns.values():
            if column not in rows:
                raise DataError(
                    f"--columns …={column}: the data has no such column; "
                    f"{nearest(column, rows.columns)}"
                )
        named = {name: rows.columns[column] for name, column in self.columns.items()}
        return replace(rows, columns={**rows.columns, **named}) if named else rows

    def _column(self, item: Input, rows: Rows) -> str | None:
        """The column that feeds an input: by --columns, by name, or the only one there is."""
        name = self.columns.get(item.path, item.path)
        if name in rows:
            return name
        assert self.model.signature is not None
        alone = len(self.model.signature.given) == 1 and len(rows.columns) == 1
        return next(iter(rows.columns)) if alone and item.path not in self.columns else None

    def _taken(self, rows: Rows) -> dict[str, Any]:
        assert self.model.signature is not None
        found = {item.path: self._column(item, rows) for item in self.model.signature.given}
        return {path: rows[column] for path, column in found.items() if column is not None}

    def _require_columns(self, rows: Rows) -> None:
        assert self.model.signature is not None
        for item in self.model.signature.given:
            if self._column(item, rows) is None and not item.optional:
                raise DataError(
                    f"the data has no column for the input `{item}`; its columns are "
                    f"{', '.join(rows.columns) or 'none'}. Name one with --columns "
                    f"{item.path}=COLUMN, or give the model an encode"
                )

    def _require_asked(self, rows: Rows, missing: MissingColumn | None) -> None:
        """Raise DataError where encode asks the first rows of all for a column that none has."""
        first = min([int(rows.positions[0]), *(failure.position for failure in rows.failures)])
        if missing is not None and first == 0:
            raise DataError(
                f"encode asks for a column {missing.name!r} that the data do not have; their "
                f"columns are {', '.join(rows.columns)}. If one of them is meant: --columns "
                f"{missing.name}=COLUMN"
            ) from missing

    def _hint(self, error: str, rows: Rows) -> str:
        """What to do where encode was given numbers, of which its error speaks, for text."""
        numbers = [name for name, column in rows.columns.items() if is_numbers(column)][:3]
        if self.model.encode is None or not numbers or not _NUMBER.search(error):
            return ""
        return f" (numbers are in {', '.join(numbers)}; {self._as_text})"

    def _empty(self) -> Encodings:
        if self.model.collate is not None or self.model.signature is None:
            return Items([], np.zeros((0, 1), np.int64))
        none = np.zeros((0, len(self.model.signature.variable)), np.int64)
        return Block(self.model.signature, {}, none, none)


def together(blocks: Sequence[Encodings]) -> Encodings:
    """Several encoded blocks as one."""
    filled = [block for block in blocks if len(block)] or list(blocks[:1])
    tensors = [block for block in filled if isinstance(block, Block)]
    items = [block for block in filled if isinstance(block, Items)]
    return concatenated(tensors) if tensors else joined_items(items)


def checked(
    signature: Signature, arrays: Mapping[str, Any], count: int
) -> tuple[Block, frozenset[int]]:
    """Check `count` rows of arrays against a signature, row shape by row shape.

    Returns the Block and the indices of rows that were cut at an axis' upper bound, which is done
    only to axes with `pad`. Raises TypeError or ValueError saying which input expected what.
    """
    axes = signature.variable
    lengths = np.zeros((count, len(axes)), np.int64)
    column_of = dict(zip(axes, lengths.T, strict=True))
    values: dict[str, Numbers] = {}
    cut: set[int] = set()
    for item in signature.given:
        array = arrays.get(item.path)
        if array is None:
            if not item.optional:
                raise ValueError(f"encode gave nothing for the input `{item}`")
            continue
        if _is_sound(item, array, count):
            values[item.path] = array
            continue
        try:
            value = as_values(array)
        except (TypeError, ValueError) as error:
            raise type(error)(f"input `{item}`: {error}") from error
        if len(value) != count:
            raise ValueError(f"input `{item}`: {len(value)} values for {count} rows")
        require_fit(item, value)
        shapes = _shapes(item, value)
        for place, axis in enumerate(item.row_axes):
            if not axis.is_variable:
                continue
            column = np.array([shape[place] for shape in shapes], np.int64)
            high = axes[axis.name].high
            if high is not None and (column > high).any():
                if item.pad is None:
                    raise ValueError(_misfit(item, shapes[int(np.argmax(column))]))
                cut.update(np.flatnonzero(np.broadcast_to(column > high, count)).tolist())
                value = _cut(value, place, high)
                column = np.minimum(column, high)
            known = column_of[axis.name]
            wrong = np.flatnonzero((known != 0) & (known != column))
            if len(wrong):
                here = np.broadcast_to(column, count)[wrong[0]]
                raise ValueError(
                    f"input `{item}`: axis {axis.name!r} is {here} here "
                    f"and {known[wrong[0]]} in another input of the same row"
                )
            known[:] = column
        values[item.path] = value
    sizes = _permitted(signature, lengths) if axes else lengths
    return Block(signature, values, lengths, sizes), frozenset(cut)


def _is_sound(item: Input, array: Any, count: int) -> bool:
    """Whether an array is just what `checked` would make of it, at one look."""
    shape = item.row_shape
    return (
        shape is not None
        and type(array) is np.ndarray
        and array.shape == (count, *shape)
        and array.dtype == NUMPY[item.dtype]
        and array.flags.writeable
    )


def _permitted(signature: Signature, lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The sizes that rows of these lengths take: up to the minimum and multiple of each axis."""
    sizes = lengths.copy()
    for at, (name, axis) in enumerate(signature.variable.items()):
        least = axis.rounded(1)
        sizes[:, at] = np.maximum(-(-lengths[:, at] // axis.multiple) * axis.multiple, least)
        if not signature.padded(name) and (sizes[:, at] != lengths[:, at]).any():
            odd = int(lengths[:, at][sizes[:, at] != lengths[:, at]][0])
            raise ValueError(f"axis `{axis}` cannot be {odd}, and nothing says how to pad it")
    return sizes


def _shapes(item: Input, value: Numbers) -> list[tuple[int, ...]]:
    """The shape of each row, or the only one of all. Raises ValueError unless its axes are there
    and those of a fixed size have it."""
    shapes = [value.shape[1:]] if isinstance(value, np.ndarray) else [row.shape for row in value]
    dims = set(map(len, shapes))
    if len(dims) > 1:
        raise ValueError(f"input `{item}`: rows have {' and '.join(map(str, sorted(dims)))} axes")
    for shape in dict.fromkeys(shapes):
        if len(shape) != len(item.row_axes) or any(
            size != axis.size
            for size, axis in zip(shape, item.row_axes, strict=True)
            if not axis.is_variable
        ):
            raise ValueError(_misfit(item, shape))
    return shapes


def _misfit(item: Input, shape: tuple[int, ...]) -> str:
    expected = " ".join(map(str, item.row_axes))
    return f"input `{item}`: expected a row of [{expected}], got {list(shape)}"


def _cut(value: Numbers, place: int, high: int) -> Numbers:
    span = (*[slice(None)] * place, slice(0, high))
    if isinstance(value, np.ndarray):
        return value[(slice(None), *span)]
    return [row[span] if row.shape[place] > high else row for row in value]


def inferred(model: Model, rows: Rows, columns: Mapping[str, str]) -> Signature:
    """The signature of a model that has none, taken from its data.

    Inputs are the columns named as the arguments of `forward`, or the only column there is.
    Floating data take the dtype of the model's parameters, sizes are those of the rows; an axis on
    which the rows differ is variable, and not padded. Raises DataError where columns are missing.
    """
    from forwardpass.loading.programs import ModuleProgram
    from forwardpass.tensors.modules import parameters_of

    program = ModuleProgram(model.module)
    names, any_keyword = program.arguments(), program.takes_any_keyword
    wanted = dict.fromkeys([*program.required(), *columns, *(n for n in names if n in rows)])
    if any_keyword and not names:
        wanted = dict.fromkeys(rows.columns)
    if len(wanted) == 1 and len(rows.columns) == 1:
        columns = {next(iter(wanted)): next(iter(rows.columns)), **columns}
    inputs: list[Input] = []
    parameters = parameters_of(model.module)
    floating = next((spelled(p) for _, p in parameters if p.is_floating_point()), "f32")
    for name in wanted:
        column = columns.get(name, name)
        if column not in rows:
            signature = (
                inspect.signature(model.module.forward) if not names else f"({', '.join(names)})"
            )
            raise DataError(
                f"{program.name}.forward{signature} needs {name!r}, and the data "
                f"has no such column; its columns are {', '.join(rows.columns) or 'none'}. Use "
                f"--columns {name}=COLUMN, or say what goes in: "
                f"Model(module, inputs={name + ': f32[batch …]'!r})"
            )
        try:
            value = as_values(rows[column])
        except (TypeError, ValueError) as error:
            raise DataError(
                f"column {column!r} cannot feed the input {name!r}: {error}; "
                "give the model an encode that makes numbers of it"
            ) from error
        first = value[0]
        shape = (
            list(value.shape[1:])
            if isinstance(value, np.ndarray)
            else [
                size
                if all(row.ndim == first.ndim and row.shape[i] == size for row in value)
                else None
                for i, size in enumerate(first.shape)
            ]
        )
        axes = (
            Axis("batch"),
            *(Axis(f"{name}{i}") if n is None else Axis(size=n) for i, n in enumerate(shape, 1)),
        )
        inputs.append(Input(name, floating if first.dtype.kind == "f" else spelled(first), axes))
    if not inputs:
        raise DataError(f"cannot tell what {program.name}.forward takes; give inputs=…")
    return Signature(tuple(inputs))
