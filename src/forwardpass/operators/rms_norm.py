"""Root-mean-square normalisation over the last axes, whose sizes are `normalized_shape`.

    mean square = Σ x² / n        x̂ = x / √(mean square + ε)        y = x̂ · weight

Where no ε is given, it is the machine epsilon of the input's dtype. Source: Zhang and Sennrich,
"Root Mean Square Layer Normalization", 2019; the PyTorch documentation of `nn.RMSNorm`.
"""

from __future__ import annotations

from itertools import product as combinations
from math import sqrt
from typing import Any

import torch

from forwardpass.nouns.explanations import Equation, Term
from forwardpass.operators._sums import Arguments, Element, at, only_first, picked, place, summed

COVERS = ("aten.rms_norm", "aten._fused_rms_norm")
FORMULA = "x / √(mean of x² + ε) · weight"


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    return 0


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`mean square`, `x̂`, `weight`, `y`."""
    only_first(operator, output)
    x: torch.Tensor = arguments["input"]
    weight, shape = arguments["weight"], arguments["normalized_shape"]
    epsilon = torch.finfo(x.dtype).eps if arguments["eps"] is None else arguments["eps"]
    outer = element[: len(element) - len(shape)]
    row = [(*outer, *inner) for inner in combinations(*(range(size) for size in shape))]
    n = len(row)
    squares = [
        Term(f"{place('x', *where)}² / {n}", value**2 / n)
        for where, value in zip(row, picked(x, row), strict=True)
    ]
    mean_square = summed("mean square", f"Σ x² / {n}", squares)
    standard = at(x, element) / sqrt(mean_square.value + epsilon)
    steps = [mean_square, Equation("x̂", f"x / √(mean square + {epsilon:g})", standard)]
    if weight is None:
        return [*steps, Equation("y", "x̂", standard)]
    own = element[len(outer) :]
    factor = Equation("weight", place("W", *own), at(weight, own))
    return [*steps, factor, Equation("y", "x̂ · weight", standard * factor.value)]
