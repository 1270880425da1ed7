"""The type of a column whose values Arrow cannot agree on by itself.

JSON's whole numbers have no bound, Arrow's end at 64 bits. Numbers beyond, or that would lose
digits beside floats, are delivered as text that prints back the same; so are they inside lists and
objects. Of values of several kinds the commonest decides, and the others do not fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from forwardpass.nouns.arrow import pa

MARK = {b"forwardpass": b"numbers"}
"""Metadata of a column whose type was found here: later shards fit their values to it likewise."""
_INT64, _UINT64 = range(-(2**63), 2**63), range(2**64)


def type_of(values: Sequence[Any]) -> pa.DataType:
    """The type for plain Python values, None among them, inside lists and dicts alike.

    Numbers: int64, uint64 or float64, whichever holds every one exactly, else digits.
    """
    groups: dict[str, list[Any]] = {}
    for value in values:
        if value is not None:
            groups.setdefault("number" if _is_number(value) else type(value).__name__, []).append(
                value
            )
    for name, group in sorted(groups.items(), key=lambda item: -len(item[1])):
        if name == "number":
            return _type_of_numbers(group)
        if name == "list":
            return pa.list_(type_of([item for value in group for item in value]))
        if name == "dict":
            names = dict.fromkeys(name for value in group for name in value)
            return pa.struct([(name, type_of([v.get(name) for v in group])) for name in names])
        try:
            return pa.array(group).type
        except (pa.ArrowException, TypeError):
            continue  # objects that Arrow does not know
    return pa.string() if groups else pa.null()


def fitted(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """`values` as a column of a type that `type_of` found. Raises pa.ArrowException, TypeError or
    OverflowError where a value would turn into another."""
    return pa.array([_as(value, kind) for value in values], kind)


def _digits() -> pa.DataType:
    """The type of numbers that are delivered as text; text as such is a plain string."""
    return pa.large_string()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _type_of_numbers(values: Sequence[float]) -> pa.DataType:
    whole = [value for value in values if isinstance(value, int)]
    if len(whole) < len(values):
        return pa.float64() if all(map(_is_exact, whole)) else _digits()
    if min(whole) in _INT64 and max(whole) in _INT64:
        return pa.int64()
    return pa.uint64() if min(whole) in _UINT64 and max(whole) in _UINT64 else _digits()


def _is_exact(value: int) -> bool:
    try:
        return float(value) == value
    except OverflowError:
        return False


def _as(value: Any, kind: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, list) and pa.types.is_list(kind):
        return [_as(item, kind.value_type) for item in cast("list[Any]", value)]
    if isinstance(value, dict) and pa.types.is_struct(kind):
        members = cast("Mapping[str, Any]", value)
        types = {field.name: field.type for field in kind}
        if members.keys() <= types.keys():
            return {name: _as(item, types[name]) for name, item in members.items()}
    elif isinstance(value, bool) or not isinstance(value, int | float):
        if isinstance(value, bool) == pa.types.is_boolean(kind) and kind != _digits():
            return value
    elif kind == _digits():
        return repr(value)
    elif pa.types.is_floating(kind) and (isinstance(value, float) or _is_exact(value)):
        return float(value)
    elif pa.types.is_integer(kind) and isinstance(value, int):
        return value
    raise pa.ArrowTypeError(f"{type(value).__name__} values do not fit a column of {kind}")
