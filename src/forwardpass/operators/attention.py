"""Scaled dot-product attention of queries [… L E] over keys [… S E] and values [… S Ev].

    score[j] = scale · Σ q[i, e] · k[j, e] + mask[i, j]        scale = 1 / √E by default
    p[j] = exp(score[j] − max) / Σ exp(score − max)
    y[i, d] = Σ p[j] · v[j, d]

A boolean mask lets a key take part where it is true; `is_causal` leaves out the keys after query
i; a query that no key may answer gets 0. Where there are fewer heads of keys than of queries,
neighbouring heads of queries share one. Source: Vaswani et al., "Attention Is All You Need", 2017.
"""

from __future__ import annotations

from math import inf, prod, sqrt
from typing import TYPE_CHECKING, Any

from forwardpass.nouns.explanations import Equation
from forwardpass.operators._sums import (
    Arguments,
    Element,
    at,
    behind,
    joined,
    numbers,
    only_first,
    place,
    summed,
    times,
)
from forwardpass.operators.softmax import exponents, largest

if TYPE_CHECKING:
    from torch import Tensor

COVERS = (
    "aten.scaled_dot_product_attention",
    "aten._scaled_dot_product_attention_math",
    "aten._scaled_dot_product_attention_math_for_mps",
    "aten._scaled_dot_product_flash_attention_for_cpu",
    "aten._scaled_dot_product_flash_attention",
    "aten._scaled_dot_product_efficient_attention",
    "aten._scaled_dot_product_cudnn_attention",
    "aten._scaled_dot_product_fused_attention_overrideable",
)
FORMULA = "softmax(q · kᵀ · scale + mask) · v"


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    """batch × heads × L × S × (E + Ev), as if no key were masked."""
    query, key, value = (arguments[name].shape for name in ("query", "key", "value"))
    return prod(joined(query[:-2], key[:-2])) * query[-2] * key[-2] * (query[-1] + value[-1])


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """A `score` and a weight `p` for each key, then `y`. Raises LookupError under dropout."""
    only_first(operator, output)
    if arguments["dropout_p"] > 0:
        raise LookupError(f"{operator}: dropout; which weights were kept is not known")
    query, key, value = (arguments[name] for name in ("query", "key", "value"))
    *batch, i, d = element
    batch = tuple(batch)
    shared = batch
    if query.dim() > 2 and query.shape[-3] > key.shape[-3]:
        shared = (*batch[:-1], batch[-1] // (query.shape[-3] // key.shape[-3]))
    in_query = (*behind(batch, query.shape[:-2]), i)
    in_keys, in_values = (behind(shared, each.shape[:-2]) for each in (key, value))
    scale = arguments["scale"]
    scale = 1 / sqrt(query.shape[-1]) if scale is None else float(scale)

    q = numbers(query[in_query])
    scores: list[Equation] = []
    for j, k in enumerate(numbers(key[in_keys])):
        products = [
            times(
                f"{scale:g} · {place('q', *in_query, e)} · {place('k', *in_keys, j, e)}",
                scale,
                *factors,
            )
            for e, factors in enumerate(zip(q, k, strict=True))
        ]
        score = summed(f"score[{j}]", f"{scale:g} · Σ q · k", products)
        added = _mask(arguments, batch, i, j)
        if added:
            line = f"{score.formula} + mask"
            score = Equation(score.name, line, score.value + added, score.terms)
        scores.append(score)
    weights = _weights(scores)
    column = numbers(value[in_values][:, d])
    mix = [
        times(f"{weight.name} · {place('v', *in_values, j, d)}", weight.value, v)
        for j, (weight, v) in enumerate(zip(weights, column, strict=True))
    ]
    return [*scores, *weights, summed("y", "Σ p · v", mix)]


def _weights(scores: list[Equation]) -> list[Equation]:
    values = [score.value for score in scores]
    if largest(values) == -inf:
        return [Equation(f"p[{j}]", "0, as every key is masked", 0.0) for j in range(len(values))]
    powers = exponents(values)
    total = sum(powers)
    line = "exp(score − max) / Σ exp(score − max)"
    return [Equation(f"p[{j}]", line, power / total) for j, power in enumerate(powers)]


def _mask(arguments: Arguments, batch: Element, i: int, j: int) -> float:
    """What is added to the score of query i and key j."""
    if arguments["is_causal"] and j > i:
        return -inf
    mask: Tensor | None = arguments.get("attn_mask", arguments.get("attn_bias"))
    if mask is None:
        return 0.0
    added = at(mask, behind((*batch, i, j), mask.shape))
    if str(mask.dtype) == "torch.bool":
        return 0.0 if added else -inf
    return added
