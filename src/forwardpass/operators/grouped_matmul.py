"""Products of matrices in groups, as a mixture of experts makes them.

    y[i, j] = Σₖ A[i, k] · B[e(i), k, j]        e(i): the group in whose rows i lies

The rows of A are sorted by expert, and `offs[e]` is the row at which the rows of expert e end.
Source: the PyTorch documentation of `torch.nn.functional.grouped_mm`.
"""

from __future__ import annotations

from math import prod
from typing import Any

from forwardpass.nouns.explanations import Equation
from forwardpass.operators._sums import (
    Arguments,
    Element,
    numbers,
    only_first,
    place,
    summed,
    times,
)

COVERS = ("aten._grouped_mm",)
FORMULA = "A · B of the group"


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    """Rows × k × columns: a row meets the columns of its own group alone."""
    a, b = tuple(arguments["self"].shape), tuple(arguments["mat2"].shape)
    if len(a) == 3 and len(b) == 2:  # the columns are divided among the groups
        return prod(a[1:]) * b[-1]
    return prod(a) * b[-1]


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """The products of one element; only for a matrix A and a stack of matrices B."""
    only_first(operator, output)
    a, b, ends = arguments["self"], arguments["mat2"], arguments["offs"]
    if a.dim() != 2 or b.dim() != 3 or ends is None:
        raise LookupError("only rows by groups are explained: A [rows, k], B [groups, k, columns]")
    row, column = element
    group = next(e for e, end in enumerate(ends.tolist()) if row < end)
    left, right = numbers(a[row]), numbers(b[group, :, column])
    products = [
        times(f"{place('A', row, k)} · {place('B', group, k, column)}", x, w)
        for k, (x, w) in enumerate(zip(left, right, strict=True))
    ]
    return [summed("y", f"Σ {place('A', row, 'k')} · {place('B', group, 'k', column)}", products)]
