"""Batch normalisation, and instance normalisation: a mean and a variance a channel.

    training     mean = Σ x / n, variance = Σ (x − mean)² / n, over the batch and all positions
    evaluation   mean and variance are the running ones
    instance     as in training, over the positions of one sample
    x̂ = (x − mean) / √(variance + ε)        y = x̂ · weight[channel] + bias[channel]

The running statistics are updated besides (with n − 1 in place of n); y does not depend on that.
Source: Ioffe and Szegedy, "Batch Normalization", 2015; Ulyanov, Vedaldi and Lempitsky, "Instance
Normalization", 2016.
"""

from __future__ import annotations

from itertools import product as combinations
from typing import TYPE_CHECKING, Any

from forwardpass.nouns.explanations import Equation
from forwardpass.operators._sums import Arguments, Element, at, only_first
from forwardpass.operators.layer_norm import moments, scaled

if TYPE_CHECKING:
    from torch import Tensor

COVERS = (
    "aten.batch_norm",
    "aten.native_batch_norm",
    "aten._native_batch_norm_legit",
    "aten._native_batch_norm_legit_functional",
    "aten._native_batch_norm_legit_no_training",
    "aten._batch_norm_impl_index",
    "aten._batch_norm_with_update",
    "aten._batch_norm_with_update_functional",
    "aten._batch_norm_no_update",
    "aten.cudnn_batch_norm",
    "aten.miopen_batch_norm",
    "aten.instance_norm",
)
FORMULA = "(x − mean) / √(variance + ε) · weight + bias"


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    return 0


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`mean`, `variance`, `x̂`, `weight`, `bias`, `y`; the input is [batch, channels, …]."""
    only_first(operator, output)
    x: Tensor = arguments["input"]
    n, channel = element[:2]
    if _takes_statistics(operator, arguments):
        samples = [n] if operator == "aten.instance_norm" else range(x.shape[0])
        positions = (range(width) for width in x.shape[2:])
        mean, variance = moments(x, combinations(samples, [channel], *positions))
    else:
        own = (channel,)
        mean = Equation("mean", f"running_mean[{channel}]", at(arguments["running_mean"], own))
        variance = Equation(
            "variance", f"running_var[{channel}]", at(arguments["running_var"], own)
        )
    epsilon = arguments["epsilon" if "epsilon" in arguments else "eps"]
    weight, bias = arguments["weight"], arguments["bias"]
    value = at(x, element)
    rest = scaled(value, mean.value, variance.value, epsilon, weight, bias, (channel,))
    return [mean, variance, *rest]


def _takes_statistics(operator: str, arguments: Arguments) -> bool:
    if operator == "aten.instance_norm":
        return arguments["use_input_stats"]
    return arguments.get("training", "with_update" in operator)
