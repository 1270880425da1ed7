"""What operators make of scores: the terms of attention, by the names of operators.

Each function of FOLLOWING is what an operator of that name makes of scores: other scores, the
output of the fused operator, or None where the formula has no place for it. Those of BEGINNING make
scores of tensors, too. Arguments that a function does not know make it decline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, TypeAlias, TypeGuard

import torch

from forwardpass.building.steps.sdpa.contractions import Contraction
from forwardpass.building.steps.sdpa.scores import Scores, leaves_no_weight

Rule: TypeAlias = "Callable[..., Scores | torch.Tensor | None]"


# -- beginnings: queries · keys --------------------------------------------------------------------


def products(queries: Any = None, others: Any = None, *rest: Any, **more: Any) -> Scores | None:
    """queries [… L E] · others [… E S]."""
    if rest or more or not _are_factors(queries, others):
        return None
    return _begun(queries, others.transpose(-1, -2))


def added_products(
    added: Any = None, batch1: Any = None, batch2: Any = None, *rest: Any, beta: Any = 1,
    alpha: Any = 1, **more: Any,
) -> Scores | None:  # fmt: skip
    """beta · added + alpha · batch1 · batch2, as `baddbmm` has it."""
    if rest or more or not _are_factors(batch1, batch2) or not _are_numbers(beta, alpha):
        return None
    scaled = replace(_begun(batch1, batch2.transpose(-1, -2)), scale=float(alpha))
    if beta == 0:
        return scaled
    return plus(scaled, added * beta) if _is_tensor(added) else None


def contracted(equation: Any = None, *operands: Any, **more: Any) -> Scores | torch.Tensor | None:
    """queries and keys, or weights and values, by the notation of `einsum`."""
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if more or not isinstance(equation, str) or len(operands) != 2:
        return None
    first, second = operands
    dims = [len(one.shape) for one in operands if isinstance(one, Scores | torch.Tensor)]
    parsed = Contraction.parse(equation, dims) if len(dims) == 2 else None
    if parsed is None:
        return None
    if isinstance(first, Scores):
        placed = parsed.of_values()
        if placed is None or not _is_tensor(second):
            return None
        output = weighed(first, placed.second.placed(second))
        return None if output is None else output.permute(placed.order)
    placed = parsed.of_keys()
    if placed is None or not _are_factors(first, second):
        return None
    return _begun(placed.first.placed(first), placed.second.placed(second))


# -- what follows ----------------------------------------------------------------------------------


def times(one: Any = None, other: Any = None, *rest: Any, **more: Any) -> Scores | None:
    """The scores times a number, or times a tensor that is the same for all keys."""
    scores, factor = (one, other) if isinstance(one, Scores) else (other, one)
    if rest or more or scores.softmaxed:
        return None
    if _is_number(factor):
        if isinstance(factor, Real) and not float(factor) > 0 and scores.mask is not None:
            return None
        mask = scores.mask
        scaled = mask if mask is None or mask.dtype == torch.bool else mask * factor
        return replace(scores, scale=scores.scale * factor, mask=scaled)
    if not _is_tensor(factor) or not scores.takes(factor) or scores.outer is not None:
        return None
    if factor.dim() and (factor.shape[-1] != 1 or factor.dtype != scores.queries.dtype):
        return None
    mask = scores.mask
    if mask is not None:
        if mask.dtype == torch.bool:
            return None
        mask = mask * factor
    return replace(scores, queries=scores.queries * factor, mask=mask)


def divided(scores: Any = None, other: Any = None, *rest: Any, **more: Any) -> Scores | None:
    """The scores divided by a number, or by a tensor that is the same for all keys."""
    if rest or more or not isinstance(scores, Scores):
        return None
    if isinstance(other, Real) and other == 0:
        return None
    return times(scores, 1 / other) if _is_number(other) or _is_tensor(other) else None


def plus(one: Any = None, other: Any = None, *rest: Any, **more: Any) -> Scores | None:
    """The scores, and something that is added to them: a mask, a bias by position."""
    scores, added = (one, other) if isinstance(one, Scores) else (other, one)
    if rest or more or scores.softmaxed or not _is_tensor(added) or not scores.takes(added):
        return None
    if not added.is_floating_point() or (added.dim() and added.dtype != scores.dtype):
        return None
    return scores.settled().plus(added)


def minus(scores: Any = None, other: Any = None, *rest: Any, **more: Any) -> Scores | None:
    """The scores less something."""
    if rest or more or not isinstance(scores, Scores) or not _is_tensor(other):
        return None
    return plus(scores, -other) if other.is_floating_point() else None


def subtracted(one: Any = None, other: Any = None, *rest: Any, **more: Any) -> Scores | None:
    """`other` less `one`, as `__rsub__` has them."""
    return minus(other, one, *rest, **more)


def dividing(one: Any = None, other: Any = None, *rest: Any, **more: Any) -> Scores | None:
    """`other` divided by `one`, as `__rdiv__` has them."""
    return divided(other, one, *rest, **more)


def filled(
    scores: Any = None, mask: Any = None, value: Any = None, *rest: Any, **more: Any
) -> Scores | None:
    """The scores, and in their place a number that leaves no weight where `mask` is true. What a
    tensor holds is known of the record."""
    if rest or more or not isinstance(scores, Scores) or scores.softmaxed:
        return None
    if not _is_tensor(mask) or mask.dtype != torch.bool or not scores.takes(mask):
        return None
    settled = scores.settled()
    if isinstance(value, Real) and leaves_no_weight(float(value)):
        return settled.without(mask, float(value))
    return settled.without(mask, value) if _is_tensor(value) and not value.dim() else None


def chosen(
    condition: Any = None, one: Any = None, other: Any = None, *rest: Any, **more: Any
) -> Scores | None:
    """The scores where a condition holds, or where it does not, and a number elsewhere."""
    if rest or more or not _is_tensor(condition) or condition.dtype != torch.bool:
        return None
    if isinstance(one, Scores):
        return filled(one, ~condition, other)
    return filled(other, condition, one)


def softmaxed(
    scores: Any = None, dim: Any = None, *rest: Any, dtype: torch.dtype | None = None,
    _stacklevel: int = 3, half_to_float: bool = False,
) -> Scores | None:  # fmt: skip
    """The weights, if it goes over the keys."""
    if len(rest) == 1 and dtype is None and isinstance(rest[0], torch.dtype | None):
        (dtype,), rest = rest, ()
    if any(rest) or half_to_float or not isinstance(scores, Scores) or scores.softmaxed:
        return None
    if not isinstance(dim, int) or dim not in (-1, len(scores.shape) - 1):
        return None
    return replace(scores, softmaxed=True, dtype=dtype or scores.dtype)


def dropped(scores: Any = None, p: Any = 0.5, training: Any = True, *rest: Any, **more: Any) -> Any:
    """The scores, where nothing is dropped."""
    return scores if not training or p == 0 else None


def cast_to(scores: Any = None, *rest: Any, **more: Any) -> Scores | None:
    """The scores in another dtype."""
    named = {**more}
    named.pop("copy", None)
    named.pop("non_blocking", None)
    dtypes = [value for value in (*rest, *named.values()) if value is not None]
    if len(dtypes) != 1 or not isinstance(scores, Scores):
        return None
    (dtype,) = dtypes
    dtype = dtype.dtype if isinstance(dtype, torch.Tensor) else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        return None
    return scores if dtype == scores.dtype else replace(scores, dtype=dtype)


def widened(scores: Any = None, *rest: Any, **more: Any) -> Scores | None:
    """The scores in float32."""
    return None if rest or more else cast_to(scores, torch.float32)


def kept(scores: Any = None, *rest: Any, **more: Any) -> Any:
    """The scores themselves, of which this makes a copy or nothing."""
    return scores if isinstance(scores, Scores) and not any(rest) else None


def viewed(scores: Any = None, *sizes: Any, **more: Any) -> Scores | None:
    """The scores with other axes before the last two."""
    if len(sizes) == 1 and isinstance(sizes[0], list | tuple):
        sizes = tuple(sizes[0])  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if more or len(sizes) < 2 or not all(map(_is_size, sizes)):
        return None
    *before, rows, columns = scores.shape
    *outer, asked_rows, asked_columns = sizes
    if asked_rows not in (rows, -1) or asked_columns not in (columns, -1):
        return None
    if sizes.count(-1) > 1 or (-1 not in outer and _count(outer) != _count(before)):
        return None
    if -1 in outer:
        rest = _count([size for size in outer if size != -1])
        outer = [_count(before) // rest if size == -1 else size for size in outer]
    return replace(scores, outer=None if tuple(outer) == scores.inner else tuple(outer))


def weighed(
    weights: Any = None, values: Any = None, *rest: Any, **more: Any
) -> torch.Tensor | None:
    """weights · values, by the fused operator."""
    if rest or more or not isinstance(weights, Scores) or not weights.softmaxed:
        return None
    if not _is_tensor(values) or values.dim() < 2 or values.dtype != weights.dtype:
        return None
    return weights.weigh(values)


def multiplied(
    one: Any = None, other: Any = None, *rest: Any, **more: Any
) -> Scores | torch.Tensor | None:
    """A product of matrices, which begins or ends attention."""
    return (weighed if isinstance(one, Scores) else products)(one, other, *rest, **more)


BEGINNING: dict[str, Rule] = {
    "matmul": multiplied,
    "bmm": multiplied,
    "mm": multiplied,
    "baddbmm": added_products,
    "einsum": contracted,
}
"""Operators, by name, that make scores of tensors."""

FOLLOWING: dict[str, Rule] = {
    **BEGINNING,
    "mul": times,
    "multiply": times,
    "div": divided,
    "divide": divided,
    "true_divide": divided,
    "add": plus,
    "sub": minus,
    "subtract": minus,
    "__rsub__": subtracted,
    "__rdiv__": dividing,
    "masked_fill": filled,
    "where": chosen,
    "softmax": softmaxed,
    "_softmax": softmaxed,
    "dropout": dropped,
    "to": cast_to,
    "type": cast_to,
    "type_as": cast_to,
    "float": widened,
    "contiguous": kept,
    "clone": kept,
    "detach": kept,
    "view": viewed,
    "reshape": viewed,
}
"""Operators, by name, that make something of scores."""


def _begun(queries: torch.Tensor, keys: torch.Tensor) -> Scores:
    more = queries.dim() - keys.dim()
    keys, queries = keys[(None,) * more], queries[(None,) * -more]
    return Scores(queries, keys, dtype=queries.dtype)


def _are_factors(one: Any, other: Any) -> bool:
    """Whether these may be queries and keys."""
    return (
        _is_tensor(one) and _is_tensor(other) and one.is_floating_point()
        and one.dtype == other.dtype and one.dim() >= 2 and other.dim() >= 2
    )  # fmt: skip


def _is_tensor(value: Any) -> TypeGuard[torch.Tensor]:
    return isinstance(value, torch.Tensor)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real | torch.SymFloat | torch.SymInt) and value is not True


def _is_size(value: Any) -> bool:
    """While a trace is made, sizes are tensors."""
    return isinstance(value, int | torch.SymInt) or (_is_tensor(value) and not value.dim())


def _are_numbers(*values: Any) -> bool:
    return all(map(_is_number, values))


def _count(sizes: Sequence[int]) -> int:
    count = 1
    for size in sizes:
        count = count * size
    return count
