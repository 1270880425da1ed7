"""Rows as JSON: what a body may hold for one model, and the arrays or values that it becomes.

The decoder is compiled from the signature, so that kinds, ranges and sizes are checked while the
JSON is read. What it refuses is looked at once more, to say what came and where.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Union, cast

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType

from forwardpass.errors import nearest
from forwardpass.nouns.signatures import Axis, Input, Signature
from forwardpass.serving.asking import MOST_PRIORITY
from forwardpass.serving.exchanges import RefusedError
from forwardpass.serving.messages import About
from forwardpass.tensors.arrays import NUMPY, stacked
from forwardpass.tensors.blocks import Numbers

DEEPEST: Final = 128
"""Lists and objects within each other, of a value that the model encodes."""
_LONGEST_TIMEOUT_MS: Final = 86_400_000
_MOST_SAID: Final = 200
"""Characters of what a decoder says, which may repeat a body, that are said to the client."""
_STEP: Final = re.compile(r"\[(?P<index>\d+)\]|\.(?P<name>[^.\[]+)")
_UNKNOWN: Final = "object contains unknown field `"

Timeout = Annotated[
    float, Meta(gt=0, le=_LONGEST_TIMEOUT_MS, description="Milliseconds until it must be answered.")
]
Priority = Annotated[
    int,
    Meta(
        ge=-MOST_PRIORITY,
        le=MOST_PRIORITY,
        description="Rows of a higher one do not wait for those of a lower.",
    ),
]


@dataclass(slots=True)
class AskedRows:
    """What a body asks: rows as `values` to encode or as `arrays`, and when they are wanted."""

    count: int
    values: Sequence[Any] | None
    arrays: dict[str, Numbers] | None
    bytes: int
    timeout_seconds: float | None
    priority: int


class JsonRows:
    """How the rows of one model stand in JSON.

    Attributes:
        signature: of the model; None where its collate makes the inputs.
        body: the type of a whole body, from which its JSON schema can be made.
    """

    def __init__(self, about: About, title: str = "Rows") -> None:
        self.signature = Signature.parse(about.inputs) if about.inputs else None
        self._given = () if about.encodes or self.signature is None else self.signature.given
        self._alone = self._given[0] if len(self._given) == 1 else None
        self._most_numbers = _most_numbers(self._given, self.signature)
        self._fields = {item.path: f"input{n}" for n, item in enumerate(self._given)}
        self._row: type[msgspec.Struct] | None = None
        row: Any = Any
        if self._given:
            self._row = msgspec.defstruct(
                f"{title}.row",
                [self._field(item) for item in self._given],
                rename={field: path for path, field in self._fields.items()},
                forbid_unknown_fields=True,
            )
            row = self._row if self._alone is None else Union[self._type(self._alone), self._row]  # noqa: UP007
        read = msgspec.defstruct(
            title,
            [("rows", list[row]), ("timeout_ms", Timeout | None, None), ("priority", Priority, 0)],
            forbid_unknown_fields=True,
        )
        self._decoder = msgspec.json.Decoder(read)
        self.body: type[msgspec.Struct] = read
        if about.encodes and about.columns and _is_text(about.example):
            self.body = _of_texts(read, about.columns, title)

    def read(self, body: bytes, most_rows: int, first: int = 0) -> AskedRows:
        """The rows of a body. Raises RefusedError: 413 for more than `most_rows`, 400 for what is
        no JSON or does not fit the signature, with the row and what was expected there.

        `first` is the number of its first row, where it is a part of a larger body.
        """
        try:
            asked: Any = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise self.refused(error, body, first) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise not_json(error, body) from error
        rows, count = asked.rows, len(asked.rows)
        require_few(count, most_rows)
        timeout = None if asked.timeout_ms is None else asked.timeout_ms / 1000
        if self._row is None:
            _require_plain(rows, first)
            return AskedRows(count, rows, None, len(body), timeout, asked.priority)
        arrays = self._arrays(rows, first)
        held = sum(
            value.nbytes if isinstance(value, np.ndarray) else sum(row.nbytes for row in value)
            for value in arrays.values()
        )
        return AskedRows(count, None, arrays, held, timeout, asked.priority)

    def require_fitting(self, text: bytes, row: int) -> None:
        """Raise RefusedError for the text of a row with more numbers than any row has: it is not
        read, since a number takes ten times its text until it is in an array."""
        if self._most_numbers is not None and text.count(b",") >= self._most_numbers:
            given = ", ".join(f"`{item}`" for item in self._given)
            raise RefusedError(400, f"row {row} has more numbers than {given}", row=row)

    # -- types ------------------------------------------------------------------------------------

    def _field(self, item: Input) -> tuple[str, Any] | tuple[str, Any, Any]:
        name, kind = self._fields[item.path], self._type(item)
        return (name, kind | UnsetType, UNSET) if item.optional else (name, kind)

    def _type(self, item: Input) -> Any:
        kind = _number(item.dtype)
        assert self.signature is not None
        for axis in reversed(item.row_axes):
            bounds = self.signature.variable[axis.name] if axis.is_variable else axis
            kind = Annotated[list[kind], self._lengths(bounds)]
        return Annotated[kind, Meta(description=str(item))]

    def _lengths(self, axis: Axis) -> Meta:
        if not axis.is_variable:
            return Meta(min_length=axis.size, max_length=axis.size)
        assert self.signature is not None
        low = 1 if self.signature.padded(axis.name) else axis.low
        return Meta(min_length=low, max_length=axis.high)

    # -- arrays -----------------------------------------------------------------------------------

    def _arrays(self, rows: Sequence[Any], first: int) -> dict[str, Numbers]:
        arrays: dict[str, Numbers] = {}
        for item in self._given if rows else ():
            field = self._fields[item.path]
            if self._alone is None:
                values = [getattr(row, field) for row in rows]
            else:
                own = self._row
                values = [getattr(row, field) if row.__class__ is own else row for row in rows]
            if item.optional and UNSET in values:
                self._require_none(item, values, first)
                continue
            dtype = NUMPY[item.dtype]
            if item.variable:
                made = [self._array(item, *row) for row in enumerate(values, first)]
                arrays[item.path] = stacked(made)
            else:
                arrays[item.path] = _complexes(np.array(values, _parts(dtype)), dtype)
        if self.signature is not None and self.signature.variable and rows:
            self._require_sizes(arrays, len(rows), first)
        return arrays

    def _array(self, item: Input, row: int, value: Any) -> np.ndarray[Any, Any]:
        dtype = NUMPY[item.dtype]
        try:
            return _complexes(np.array(value, _parts(dtype)), dtype)
        except ValueError:  # only lists of several lengths are left that could raise it
            said = f"row {row}: the lists of `{item}` have several lengths along one axis"
            raise RefusedError(400, said, row=row) from None

    @staticmethod
    def _require_none(item: Input, values: Sequence[Any], first: int) -> None:
        """An input that may be left out is there for all rows of a request, or for none."""
        has = next((place for place, value in enumerate(values) if value is not UNSET), None)
        if has is not None:
            raise left_out(item.path, first + has, first + values.index(UNSET))

    def _require_sizes(self, arrays: dict[str, Numbers], count: int, first: int) -> None:
        """Raise RefusedError where an axis has two sizes in a row, or one that is not permitted."""
        assert self.signature is not None
        sizes: list[dict[str, tuple[int, Input]]] = [{} for _ in range(count)]
        for item in self._given:
            for place, axis in enumerate(item.row_axes) if item.path in arrays else ():
                if not axis.is_variable:
                    continue
                bounds = self.signature.variable[axis.name]
                loose = bounds.multiple == 1 or self.signature.padded(axis.name)
                for row, value in enumerate(arrays[item.path], first):
                    size = value.shape[place]
                    known, other = sizes[row - first].setdefault(axis.name, (size, item))
                    if known != size:
                        said = (
                            f"row {row}: axis {axis.name!r} is {size} in `{item.path}` and {known} "
                            f"in `{other.path}`"
                        )
                        raise RefusedError(400, said, row=row)
                    if not loose and size % bounds.multiple:
                        said = (
                            f"row {row}: `{item.path}` has {size} along the axis `{bounds}`, and "
                            f"nothing says how to fill it up to a multiple of {bounds.multiple}"
                        )
                        raise RefusedError(400, said, row=row)

    # -- what is said -----------------------------------------------------------------------------

    def refused(self, error: msgspec.ValidationError, body: bytes, first: int = 0) -> RefusedError:
        """What came, where, and what was expected. `first` is as in `read`."""
        row, where, said = placed(error, body)
        if row is not None:
            where = where.replace(f".rows[{row}]", f".rows[{first + row}]", 1)
            row += first
        unknown = said.startswith(_UNKNOWN)
        if unknown:
            name = said.removeprefix(_UNKNOWN).removesuffix("`")
            known = self._fields if row is not None else ("rows", "timeout_ms", "priority")
            what = "input" if row is not None else "field"
            said = f"no such {what}: {name!r:.80}; {nearest(name, known)}"
        elif row is None and not where.startswith("."):
            said += '; send {"rows": [one, another, …]}'
        item = self._at(where) if row is not None and not unknown else None
        if item is not None:
            said += f"; it is `{item}`"
        elif row is not None and not unknown and self._given:
            said += f"; a row is an object of {', '.join(f'`{given}`' for given in self._given)}"
        return RefusedError(400, f"{where.removeprefix('.') or 'the body'}: {said}", row=row)

    def _at(self, where: str) -> Input | None:
        """The input in which a place lies."""
        inside = re.sub(r"^\.rows\[\d+\]", "", where)
        if not inside.startswith("."):
            return self._alone
        paths = [p for p in self._fields if f"{inside}[".startswith(f".{p}[")]
        return next((item for item in self._given if item.path in paths), None)


def _most_numbers(given: Sequence[Input], signature: Signature | None) -> int | None:
    """Of one row, at the upper bounds of its axes; None where one has none, or rows are values."""
    if signature is None or not given:
        return None
    highs = {name: axis.high for name, axis in signature.variable.items()}
    sizes = [[highs.get(axis.name, axis.size) for axis in item.row_axes] for item in given]
    if any(size is None for item in sizes for size in item):
        return None
    parts = [2 if NUMPY[item.dtype].kind == "c" else 1 for item in given]
    return sum(
        part * math.prod(size or 0 for size in item)
        for part, item in zip(parts, sizes, strict=True)
    )


def require_few(rows: int, most: int) -> None:
    """Raise RefusedError, 413, for more rows than a request may hold."""
    if rows > most:
        raise RefusedError(413, f"{rows:,} rows; a request may hold {most:,}: ask twice")


def left_out(path: str, has: int, has_not: int) -> RefusedError:
    """The refusal of an input that one row has, and another has not."""
    return RefusedError(
        400,
        f"row {has} has `{path}` and row {has_not} has not: give it for all rows of a request, or "
        "for none",
        row=has,
    )


def placed(error: msgspec.ValidationError, body: bytes) -> tuple[int | None, str, str]:
    """What a decoder refused: the row, the path to it, and what was expected and came there."""
    said, found, where = str(error).rpartition(" - at `$")
    if not found:
        said, where = where, ""
    said, where = said[:_MOST_SAID], where[:_MOST_SAID].removesuffix("`")
    match = re.match(r"\.rows\[(\d{1,18})\]", where)
    length = _length(where, body) if said.startswith("Expected `array` of length ") else None
    if length is not None:
        said += f", got {length}"
    return (int(match[1]) if match else None), where, said[:1].lower() + said[1:]


def _length(where: str, body: bytes) -> int | None:
    """How long the list at this path is; None where that cannot be read: the decoder stopped there,
    and what comes behind may be no JSON, or be called the same."""
    try:
        value: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    names = where
    while names:
        if isinstance(
            value, dict
        ):  # a name may hold dots and brackets, so the known ones are tried
            known = cast("dict[str, Any]", value)
            name = max((n for n in known if names.startswith(f".{n}")), key=len, default=None)
            if name is None:
                return None
            value, names = known[name], names[len(name) + 1 :]
            continue
        step = _STEP.match(names)
        if step is None or step["index"] is None or not isinstance(value, list):
            return None
        items, index = cast("list[Any]", value), int(step["index"])
        if index >= len(items):
            return None
        value, names = items[index], names[step.end() :]
    return len(cast("list[Any]", value)) if isinstance(value, list) else None


def not_json(error: Exception, body: bytes) -> RefusedError:
    """The refusal of a body that is no JSON, or none that can be read."""
    if isinstance(error, RecursionError):
        return RefusedError(400, "the body is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return RefusedError(400, f"the body is not UTF-8: {error.reason}")
    if not body.strip():
        return RefusedError(400, "the body is empty")
    said = str(error)
    byte = re.search(r"\(byte (\d+)\)", said)
    at = body[int(byte[1]) :].lstrip(b"-") if byte else b""
    for word in ("NaN", "Infinity", "nan", "inf"):
        if at.startswith(word.encode()):
            said = f"{word} (byte {byte[1] if byte else 0}) is no number of JSON; a binary tensor "
            said += "may hold it, see /v2"
            break
    return RefusedError(400, f"the body is not JSON: {said}")


def _require_plain(rows: Sequence[Any], first: int) -> None:
    """Raise RefusedError for values that cannot travel: nested too deeply, or beyond 64 bits."""
    for place, row in enumerate(rows, first):
        if isinstance(row, str):
            continue
        level: list[Any] = [row]
        for _ in range(DEEPEST):
            deeper: list[Any] = []
            for value in level:
                kind = value.__class__
                if kind is dict:
                    deeper += value.values()
                elif kind is list:
                    deeper += value
                elif kind is int and not -(2**63) <= value < 2**64:
                    said = f"row {place}: a whole number beyond 64 bits; send it as text"
                    raise RefusedError(400, said, row=place)
            level = deeper
            if not level:
                break
        else:
            said = f"row {place} is nested more than {DEEPEST} deep"
            raise RefusedError(400, said, row=place)


def _is_text(example: str) -> bool:
    """Whether a row that is known to be answered is a text, or has nothing but texts."""
    row: Any = msgspec.json.decode(example) if example else None
    values = cast("dict[str, Any]", row).values() if isinstance(row, dict) else [row]
    return all(isinstance(value, str) for value in values)


def _of_texts(read: type[msgspec.Struct], columns: Sequence[str], title: str) -> Any:
    """The body where rows are texts. What else an encode may read, nobody says."""
    first, *others = [(f"column{n}", name) for n, name in enumerate(columns)]
    row = msgspec.defstruct(
        f"{title}.row",
        [(first[0], str), *((field, str | UnsetType, UNSET) for field, _ in others)],
        rename=dict([first, *others]),
    )
    return msgspec.defstruct(title, [("rows", list[str | row])], bases=(read,), kw_only=True)


def _number(dtype: str) -> Any:
    """The type of one number: whole ones within the range of the dtype, floats likewise."""
    if dtype == "bool":
        return bool
    held = NUMPY[dtype]
    if held.kind in "iu":
        whole = np.iinfo(held.str)
        return Annotated[int, Meta(ge=int(whole.min), le=int(whole.max))]
    part = _parts(held)
    most = float(np.finfo(part.str).max)
    kind = float if part.itemsize == 8 else Annotated[float, Meta(ge=-most, le=most)]
    pair = Meta(min_length=2, max_length=2, description="real and imaginary part")
    return Annotated[list[kind], pair] if held.kind == "c" else kind


def _parts(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of the parts of a complex number; any other as it is."""
    return np.dtype(f"f{dtype.itemsize // 2}") if dtype.kind == "c" else dtype


def _complexes(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Pairs along the last axis as complex numbers; what is real as it is."""
    return array.view(dtype)[..., 0] if dtype.kind == "c" else array
