"""Embeddings: rows of a table.

    embedding       y[…, d] = W[i[…], d]
    embedding_bag   y[b, d] = the sum, the mean or the maximum of s[p] · W[i[p], d] over the
                    places p of bag b, from offsets[b] up to offsets[b + 1]; s = 1 by default

Places that hold `padding_idx` are left out of a bag. Source: the PyTorch documentation.
"""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any

from forwardpass.nouns.explanations import Equation, Term
from forwardpass.operators._sums import Arguments, Element, at, only_first, place, summed, times

if TYPE_CHECKING:
    from torch import Tensor

COVERS = (
    "aten.embedding",
    "aten.embedding_bag",
    "aten._embedding_bag",
    "aten._embedding_bag_forward_only",
)
FORMULA = {
    "embedding": "W[i]",
    **dict.fromkeys(
        ("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"),
        "sum, mean or maximum of W[i]",
    ),
}
_SUM, _MEAN = 0, 1  # the third mode is the maximum


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    return 0


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`y`, with the rows of the bag as its terms."""
    only_first(operator, output)
    weight = arguments["weight"]
    *where, d = element
    if operator != "aten.embedding":
        return [_bag(arguments, where[0], d)]
    row = int(arguments["indices"][tuple(where)])
    return [Equation("y", f"W[{row}, {d}]", at(weight, (row, d)))]


def _bag(arguments: Arguments, bag: int, d: int) -> Equation:
    indices, scale = arguments["indices"].tolist(), arguments["per_sample_weights"]
    offsets = arguments["offsets"].tolist()
    ends = offsets[1:] if arguments["include_last_offset"] else [*offsets[1:], len(indices)]
    padding = arguments.get("padding_idx", -1)
    rows: list[Term] = []
    for p in range(offsets[bag], ends[bag]):
        row = indices[p]
        if row == padding:
            continue
        value = at(arguments["weight"], (row, d))
        if scale is None:
            rows.append(Term(f"W[{row}, {d}]", value))
        else:
            rows.append(times(f"s[{p}] · W[{row}, {d}]", at(scale, (p,)), value))
    if arguments["mode"] == _SUM:
        return summed("y", "Σ W", rows)
    if arguments["mode"] == _MEAN:
        n = len(rows)
        parts = [times(f"{term.label} / {n}", term.value, 1 / n) for term in rows]
        return summed("y", f"Σ W / {n}", parts)
    values = [term.value for term in rows]
    largest = max(values, default=0.0) if not any(map(isnan, values)) else float("nan")
    return Equation("y", "max W", largest, tuple(rows))


def gradient(
    operator: str, arguments: Arguments, name: str, element: Element, delta: Tensor
) -> list[Equation]:
    """∂L/∂W[r, d] = Σ δ[…, d] over the places that hold r; 0 where r is `padding_idx`.

    Raises LookupError for bags, and for another `name`.
    """
    if operator != "aten.embedding" or name != "weight":
        raise LookupError(f"{operator}: no gradient of {name!r}")
    row, d = element
    indices = arguments["indices"]
    places: list[Element] = []
    if row != arguments["padding_idx"]:
        places = [tuple(where) for where in (indices == row).nonzero().tolist()]
    parts = [Term(place("δ", *where, d), at(delta, (*where, d))) for where in places]
    return [summed("gradient", f"Σ δ where the index is {row}", parts)]
