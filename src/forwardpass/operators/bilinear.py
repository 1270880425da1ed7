"""Bilinear forms: y[…, o] = Σᵢⱼ W[o, i, j] · x₁[…, i] · x₂[…, j] + b[o].

`_trilinear`, to which `nn.Bilinear` is lowered, inserts axes into its three tensors
(`expand1`, `expand2`, `expand3`), multiplies them, and sums over the axes `sumdim`.
Source: the PyTorch documentation of `nn.Bilinear`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as combinations
from math import prod
from typing import Any

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
    summed,
    times,
)

COVERS = ("aten.bilinear", "aten._trilinear")
FORMULA = {"bilinear": "x₁ · W · x₂ + b", "_trilinear": "Σ x₁ · x₂ · x₃"}


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    """One for each product of three factors."""
    if operator == "aten.bilinear":
        return prod(arguments["input1"].shape[:-1]) * prod(arguments["weight"].shape)
    return prod(_whole(arguments))


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`sum`, `bias`, `y`; `y` alone where there is no bias."""
    only_first(operator, output)
    if operator == "aten._trilinear":
        return [summed("y", "Σ a · b · c", _trilinear_products(arguments, element))]
    first, second, weight = arguments["input1"], arguments["input2"], arguments["weight"]
    *batch, o = element
    x1, x2 = numbers(first[tuple(batch)]), numbers(second[tuple(batch)])
    products = [
        times(
            f"W[{o}, {i}, {j}] · {place('x₁', *batch, i)} · {place('x₂', *batch, j)}",
            w,
            x1[i],
            x2[j],
        )
        for i, row in enumerate(numbers(weight[o]))
        for j, w in enumerate(row)
    ]
    formula = f"Σ W[{o}, i, j] · x₁[i] · x₂[j]"
    if arguments["bias"] is None:
        return [summed("y", formula, products)]
    total = summed("sum", formula, products)
    bias = Equation("bias", f"b[{o}]", at(arguments["bias"], (o,)))
    return [total, bias, Equation("y", "sum + bias", total.value + bias.value)]


def _expanded(shape: Sequence[int], axes: Sequence[int]) -> list[int]:
    wide = list(shape)
    for axis in sorted(axes):
        wide.insert(axis, 1)
    return wide


def _whole(arguments: Arguments) -> Element:
    """The shape of the product before it is summed."""
    first, second, third = (
        _expanded(arguments[f"i{n}"].shape, arguments[f"expand{n}"]) for n in (1, 2, 3)
    )
    return joined(joined(first, second), third)


def _trilinear_products(arguments: Arguments, element: Element) -> list[Term]:
    whole, summed_axes = _whole(arguments), set(arguments["sumdim"])
    rest = iter(element)
    axes = [range(size) if n in summed_axes else (next(rest),) for n, size in enumerate(whole)]
    indexes = list(combinations(*axes))
    labels: list[list[str]] = []
    factors: list[list[float]] = []
    for n, letter in ((1, "a"), (2, "b"), (3, "c")):
        tensor, inserted = arguments[f"i{n}"], set(arguments[f"expand{n}"])
        own = [
            behind(tuple(i for axis, i in enumerate(index) if axis not in inserted), tensor.shape)
            for index in indexes
        ]
        labels.append([place(letter, *where) for where in own])
        factors.append(picked(tensor, own))
    return [
        times(label, *three)
        for label, *three in zip(map(" · ".join, zip(*labels, strict=True)), *factors, strict=True)
    ]
