"""Kinds: which operators compute nothing, but copy, move, join, cast or allocate; which add up.

Each question takes the name of an aten operator as records and schemas have it, with or without
namespace and overload: `aten.transpose.int`, `transpose`. What works in place (`transpose_`), what
copies what a view would show (`transpose_copy`), and what autograd shall not know for a view
(`unsafe_split`) is the same kind as the operator itself.

What a call did with memory, and whether it drew random numbers, is no question for a name: see
`Call.kind`, which was seen. What has a formula is in the COVERS of the other files.
"""

from __future__ import annotations

from functools import cache

_COPIES = frozenset({
    "alias", "clone", "contiguous", "detach", "lift", "lift_fresh", "positive", "resolve_conj",
    "resolve_neg",
})  # fmt: skip
_KEEP_ORDER = _COPIES | frozenset({
    "_reshape_alias", "flatten", "ravel", "reshape", "reshape_as", "squeeze", "unflatten",
    "unsqueeze", "view", "view_as",
})  # fmt: skip
_KEEP_NUMBERS = _KEEP_ORDER | frozenset({
    "channel_shuffle", "flip", "fliplr", "flipud", "mT", "moveaxis", "movedim",
    "native_channel_shuffle", "numpy_T", "permute", "pixel_shuffle", "pixel_unshuffle", "roll",
    "rot90", "swapaxes", "swapdims", "t", "transpose",
})  # fmt: skip
_JOINS = frozenset({
    "cat", "column_stack", "concat", "concatenate", "dstack", "hstack", "row_stack", "stack",
    "vstack",
})  # fmt: skip
_MOVES = _KEEP_NUMBERS | _JOINS | frozenset({
    "as_strided", "broadcast_to", "chunk", "diagonal", "dsplit", "expand", "expand_as", "hsplit",
    "linalg_diagonal", "narrow", "repeat", "select", "slice", "split", "split_with_sizes",
    "tensor_split", "tile", "unbind", "unfold", "vsplit",
})  # fmt: skip
_CASTS = frozenset({
    "_autocast_to_full_precision", "_autocast_to_reduced_precision", "_to_copy", "to", "type_as",
})  # fmt: skip
_NEGATES = frozenset({
    "_conj", "_conj_physical", "_neg_view", "adjoint", "conj", "conj_physical", "mH", "matrix_H",
})  # fmt: skip
_ALLOCATES = frozenset({
    "empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided",
    "resize", "resize_as",
})  # fmt: skip
_ADDS_UP = frozenset({
    "_log_softmax", "_softmax", "cumprod", "cumsum", "index_add", "layer_norm",
    "linalg_vector_norm", "log_softmax", "logcumsumexp", "logsumexp", "mean", "nanmean", "nansum",
    "native_layer_norm", "norm", "prod", "scatter_add", "scatter_reduce", "softmax", "std",
    "std_mean", "sum", "var", "var_mean",
})  # fmt: skip


_SCANS = frozenset({"cummax", "cummin", "cumprod", "cumsum", "logcumsumexp"})


@cache
def bare(operator: str) -> str:
    """The name that an operator shares with its variants: `aten.transpose_.int` → `transpose`."""
    name = operator.removeprefix("aten.").partition(".")[0].rstrip("_")
    name = name.removeprefix("_" if name.startswith("_unsafe_") else "").removeprefix("unsafe_")
    shown = name.removesuffix("_copy")
    return shown if shown in _MOVES or shown in _NEGATES else name


def copies(operator: str) -> bool:
    """Whether its result equals its operand: the same numbers in the same shape and dtype."""
    return bare(operator) in _COPIES


def keeps_order(operator: str) -> bool:
    """Whether it copies, or gives the same numbers in the same order another shape."""
    return bare(operator) in _KEEP_ORDER


def keeps_numbers(operator: str) -> bool:
    """Whether each number of its operand stands in the result once, wherever that is."""
    return bare(operator) in _KEEP_NUMBERS


def joins(operator: str) -> bool:
    """Whether it puts several operands beside each other, and does no more."""
    return bare(operator) in _JOINS


def moves(operator: str) -> bool:
    """Whether its result has numbers of its operands and no others, each once, often, or never.

    `view` moves, too, but where it is asked for another dtype, and then shows bytes.
    """
    return bare(operator) in _MOVES


def casts(operator: str) -> bool:
    """Whether it may give the same numbers another dtype, device or layout in memory."""
    return bare(operator) in _CASTS


def negates(operator: str) -> bool:
    """Whether it changes signs, of complex numbers those of the imaginary part, be it as a view."""
    return bare(operator) in _NEGATES


def allocates(operator: str) -> bool:
    """Whether it makes memory that nothing has written: what stands there is no result."""
    return bare(operator) in _ALLOCATES


def adds_up(operator: str) -> bool:
    """Whether numbers of its result are sums, means or products of many."""
    return bare(operator) in _ADDS_UP


def scans(operator: str) -> bool:
    """Whether each number of its result is made of those up to its place along one axis."""
    return bare(operator) in _SCANS


def reads_shape(operator: str) -> bool:
    """Whether it makes numbers of its own, and has only shape and dtype from its operand:
    `zeros_like`, `new_full`."""
    name = bare(operator)
    return name.endswith("_like") or name.startswith("new_")
