"""Arrow's many layouts of the same values → the plain ones, for which every operation exists."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from forwardpass.nouns.arrow import pa


def plain_type(kind: Any) -> pa.DataType:
    """`kind` without views, run ends and dictionaries, at any depth.

    A dictionary of text stays one at the top, where it saves room and everything works.
    """
    if pa.types.is_dictionary(kind) and pa.types.is_string(_unwrapped(kind.value_type)):
        return pa.dictionary(kind.index_type, pa.string(), kind.ordered)
    return _unwrapped(kind)


def plain(column: Any) -> pa.Array:
    """The column in its plain type; the same object where it has it already."""
    kind = column.type
    target = plain_type(kind)
    if target == kind:
        return column
    if pa.types.is_run_end_encoded(kind):
        pc: Any = import_module("pyarrow.compute")  # it makes its functions: no checker sees them
        return plain(pc.run_end_decode(column))
    if pa.types.is_dictionary(kind):
        held = pa.DictionaryArray.from_arrays(column.indices, plain(column.dictionary))
        return held if pa.types.is_dictionary(target) else held.dictionary_decode()
    if _is_flat(kind):
        return column.cast(target)
    return pa.array(column.to_pylist(), target)  # Arrow 26 casts no run ends, and views wrongly


def _is_flat(kind: Any) -> bool:
    """Whether a nested type holds neither run ends nor views of lists."""
    if pa.types.is_struct(kind):
        return all(_is_flat(field.type) for field in kind)
    if pa.types.is_map(kind):
        return _is_flat(kind.key_type) and _is_flat(kind.item_type)
    views = (pa.types.is_list_view, pa.types.is_large_list_view, pa.types.is_run_end_encoded)
    inner = getattr(kind, "value_type", None)
    return not any(is_view(kind) for is_view in views) and (inner is None or _is_flat(inner))


def _unwrapped(kind: Any) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _unwrapped(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_unwrapped(field.type)) for field in kind])
    if pa.types.is_map(kind):
        item = kind.item_field.with_type(_unwrapped(kind.item_type))
        return pa.map_(_unwrapped(kind.key_type), item)
    if not pa.types.is_nested(kind) or not hasattr(kind, "value_field"):
        return kind
    inner = kind.value_field.with_type(_unwrapped(kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner, kind.list_size)
    large = pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind)
    return pa.large_list(inner) if large else pa.list_(inner)
