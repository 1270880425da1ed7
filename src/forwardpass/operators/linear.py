"""Products of matrices and vectors: every element is a sum over one shared axis.

    linear   y[…, j] = Σₖ W[j, k] · x[…, k] + b[j]
    matmul   y[…, i, j] = Σₖ A[…, i, k] · B[…, k, j]          the axes … are broadcast
    addmm    y[i, j] = β · C[i, j] + α · Σₖ A[i, k] · B[k, j]
    addbmm   likewise, summed over the batch as well

An `addmm` whose second matrix is stored transposed and whose C is a vector is how PyTorch lowers
`nn.Linear`; it is written with W and x. Source: the PyTorch documentation of these functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from forwardpass.nouns.explanations import Equation, Term
from forwardpass.operators._sums import (
    Arguments,
    Element,
    at,
    behind,
    joined,
    numbers,
    only_first,
    picked,
    place,
    reached,
    summed,
    times,
)
from forwardpass.operators.activation import line as activated

if TYPE_CHECKING:
    from torch import Tensor

# The names of the two factors, and of what is added to their product.
FACTORS = {
    "aten.linear": ("input", "weight", "bias"),
    "aten.matmul": ("self", "other", ""),
    "aten.mm": ("self", "mat2", ""),
    "aten.bmm": ("self", "mat2", ""),
    "aten.mv": ("self", "vec", ""),
    "aten.dot": ("self", "tensor", ""),
    "aten.vdot": ("self", "other", ""),
    "aten.addmm": ("mat1", "mat2", "self"),
    "aten._addmm_activation": ("mat1", "mat2", "self"),
    "aten.addmv": ("mat", "vec", "self"),
    "aten.baddbmm": ("batch1", "batch2", "self"),
    "aten.addbmm": ("batch1", "batch2", "self"),
}
COVERS = tuple(FACTORS)
FORMULA = {
    "linear": "W · x + b",
    **dict.fromkeys(("matmul", "mm", "bmm"), "A · B"),
    "mv": "A · x",
    **dict.fromkeys(("dot", "vdot"), "Σ a · b"),
    **dict.fromkeys(("addmm", "baddbmm"), "C + A · B"),
    "_addmm_activation": "relu or gelu of (C + A · B)",
    "addmv": "c + A · x",
    "addbmm": "C + Σ A · B",
}


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    """One for each element of y and each k; addbmm: each element, k and batch."""
    left, right, _ = FACTORS[operator]
    a = tuple(arguments[left].shape)
    b = tuple(arguments[right].shape)
    columns = prod(b[:-1]) if operator == "aten.linear" else prod(b[-1:]) if len(b) > 1 else 1
    batches = prod(joined(a[:-2], b[:-2]))
    return batches * prod(a[-2:]) * columns


class _Coordinates(NamedTuple):
    """An element of y: where it lies in the batch, its row and its column (empty: no such axis)."""

    batch: Element
    row: Element
    column: Element


class _Product:
    """A product of two tensors: which row of A meets which column of B."""

    def __init__(self, operator: str, arguments: Arguments) -> None:
        left, right, added = FACTORS[operator]
        self.a: Tensor = arguments[left]
        self.b: Tensor = arguments[right]
        self.c: Tensor | None = arguments[added] if added else None
        self.alpha = float(arguments.get("alpha", 1))
        self.beta = float(arguments.get("beta", 1))
        self.transposed = operator == "aten.linear"
        self.sums_batch = operator == "aten.addbmm"
        b = self.b
        self.named_w = self.transposed or (
            operator == "aten.addmm"
            and self.c is not None
            and self.c.dim() == 1
            and b.stride() == (1, b.shape[0])
        )

    @property
    def batches(self) -> Element:
        return joined(self.a.shape[:-2], self.b.shape[:-2])

    def spot(self, element: Element) -> _Coordinates:
        columns = min(self.b.dim() - 1, 1)
        rows = min(self.a.dim() - 1, 1)
        batch = element[: len(element) - rows - columns]
        row = element[len(batch) : len(batch) + rows]
        return _Coordinates(batch, row, element[len(batch) + rows :])

    def in_a(self, spot: _Coordinates, *k: int) -> Element:
        return (*behind(spot.batch, self.a.shape[:-2]), *spot.row, *k)

    def in_b(self, spot: _Coordinates, *k: int) -> Element:
        if self.transposed:
            return (*spot.column, *k)
        return (*behind(spot.batch, self.b.shape[:-2]), *k, *spot.column)

    def in_y(self, spot: _Coordinates) -> Element:
        return (*(() if self.sums_batch else spot.batch), *spot.row, *spot.column)

    def formula(self, spot: _Coordinates) -> str:
        if self.named_w:
            return f"{place('W', *spot.column, 'k')} · {place('x', *self.in_a(spot), 'k')}"
        if self.sums_batch:
            return f"{place('A', 'n', *spot.row, 'k')} · {place('B', 'n', 'k', *spot.column)}"
        batch = behind(spot.batch, self.b.shape[:-2])
        return f"{place('A', *self.in_a(spot), 'k')} · {place('B', *batch, 'k', *spot.column)}"

    def terms(self, spot: _Coordinates) -> Iterator[Term]:
        ours = numbers(self.a[self.in_a(spot)])
        b = self.b if self.transposed or self.b.dim() == 1 else self.b.movedim(-2, -1)
        theirs = numbers(b[self.in_b(spot)])
        for k, (left, right) in enumerate(zip(ours, theirs, strict=True)):
            in_a, in_b = self.in_a(spot, k), self.in_b(spot, k)
            if self.named_w:
                w = in_b if self.transposed else in_b[::-1]
                yield times(f"{place('W', *w)} · {place('x', *in_a)}", right, left)
            else:
                yield times(f"{place('A', *in_a)} · {place('B', *in_b)}", left, right)


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`sum`, then what is added, then `y`; `y` alone for a bare product."""
    only_first(operator, output)
    form = _Product(operator, arguments)
    spot = form.spot(element)
    spots = [spot]
    if form.sums_batch:
        spots = [spot._replace(batch=(n,)) for n in range(form.a.shape[0])]
    formula = f"Σ {form.formula(spot)}"
    products = [term for one in spots for term in form.terms(one)]
    added = form.c is not None and form.beta != 0
    if not added and form.alpha == 1 and operator != "aten._addmm_activation":
        return [summed("y", formula, products)]
    steps = [summed("sum", formula, products)]
    scale = "" if form.alpha == 1 else f"{form.alpha:g} · "
    line, value = f"{scale}sum", form.alpha * steps[0].value
    if form.c is not None and added:
        own = behind(element, form.c.shape)
        bias = at(form.c, own)
        steps.append(Equation("bias", place("b" if form.named_w else "C", *own), bias))
        line += " + bias" if form.beta == 1 else f" + {form.beta:g} · bias"
        value += form.beta * bias
    if operator == "aten._addmm_activation":
        steps.append(Equation("z", line, value))
        activation = "aten.gelu" if arguments["use_gelu"] else "aten.relu"
        return [*steps, activated(activation, value, {})]
    return [*steps, Equation("y", line, value)]


def gradient(
    operator: str, arguments: Arguments, name: str, element: Element, delta: Tensor
) -> list[Equation]:
    """∂L/∂W[j, k] = Σ δ[…, j] · x[…, k], and likewise for the other factor and for what is added.

    Raises LookupError for a `name` that is none of them.
    """
    form = _Product(operator, arguments)
    left, right, added = FACTORS[operator]
    if operator == "aten._addmm_activation" or name not in (left, right, added) or not name:
        raise LookupError(f"{operator}: no gradient of {name!r}")
    if name == added and form.c is not None:
        spots = reached(element, form.c.shape, delta.shape)
        scale = () if form.beta == 1 else (form.beta,)
        return [
            summed("gradient", "Σ δ", [times(place("δ", *y), at(delta, y), *scale) for y in spots])
        ]
    scale = () if form.alpha == 1 else (form.alpha,)
    other, letter = (form.b, "B") if name == left else (form.a, "A")
    if form.named_w:
        letter = "W" if name == left else "x"
    spots_and_k = list(_spots_of(form, element, first=name == left))
    in_delta = [form.in_y(spot) for spot, _ in spots_and_k]
    find = form.in_b if name == left else form.in_a
    in_other = [find(spot, k) for spot, k in spots_and_k]
    values = zip(picked(delta, in_delta), picked(other, in_other), strict=True)
    # W is written as the layer has it, whichever way it is stored.
    turns = letter == "W" and not form.transposed
    products = [
        times(f"{place('δ', *y)} · {place(letter, *(it[::-1] if turns else it))}", *pair, *scale)
        for y, it, pair in zip(in_delta, in_other, values, strict=True)
    ]
    return [summed("gradient", f"Σ δ · {letter}", products)]


def _spots_of(
    form: _Product, element: Element, *, first: bool
) -> Iterator[tuple[_Coordinates, int]]:
    """The elements of y that an element of A (`first`) or of B enters, and its k."""
    own, other = (form.a, form.b) if first else (form.b, form.a)
    batch, rest = element[: max(own.dim() - 2, 0)], element[max(own.dim() - 2, 0) :]
    k_last = first or form.transposed or own.dim() == 1
    line, k = (rest[:-1], rest[-1]) if k_last else (rest[1:], rest[0])
    if other.dim() == 1:
        crossing: list[Element] = [()]
    else:
        columns_first = first and form.transposed
        size = other.shape[0 if columns_first else -1 if first else -2]
        crossing = [(i,) for i in range(size)]
    for place_in_batch in reached(batch, own.shape[:-2], form.batches):
        for across in crossing:
            row, column = (line, across) if first else (across, line)
            yield _Coordinates(place_in_batch, row, column), k
