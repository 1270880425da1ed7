"""Group normalisation: each sample, each group of channels has its mean and its variance.

    mean = Σ x / n        variance = Σ (x − mean)² / n        over a group's channels and positions
    x̂ = (x − mean) / √(variance + ε)        y = x̂ · weight[channel] + bias[channel]

Source: Wu and He, "Group Normalization", 2018.
"""

from __future__ import annotations

from itertools import product as combinations
from typing import TYPE_CHECKING, Any

from forwardpass.nouns.explanations import Equation
from forwardpass.operators._sums import Arguments, Element, at, only_first
from forwardpass.operators.layer_norm import moments, scaled

if TYPE_CHECKING:
    from torch import Tensor

COVERS = ("aten.group_norm", "aten.native_group_norm")
FORMULA = "(x − mean) / √(variance + ε) · weight + bias"


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    return 0


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`mean`, `variance`, `x̂`, `weight`, `bias`, `y`; the input is [batch, channels, …]."""
    only_first(operator, output)
    x: Tensor = arguments["input"]
    groups = arguments["group" if operator == "aten.native_group_norm" else "num_groups"]
    n, channel = element[:2]
    size = x.shape[1] // groups
    first = channel // size * size
    channels = range(first, first + size)
    places = combinations([n], channels, *(range(width) for width in x.shape[2:]))
    mean, variance = moments(x, places)
    weight, bias, epsilon = arguments["weight"], arguments["bias"], arguments["eps"]
    own = at(x, element)
    rest = scaled(own, mean.value, variance.value, epsilon, weight, bias, (channel,))
    return [mean, variance, *rest]
