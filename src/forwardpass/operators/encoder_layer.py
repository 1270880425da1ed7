"""The fused transformer encoder layer, and its attention alone, which PyTorch's fast path runs.

    attention(x)[t] = W_o · mix + b_o; a head's part of mix is Σ p[j] · v[j], where
                      p = softmax of q[t] · k[j] / √(width of a head), q, k, v = W_qkv · x + b_qkv
    ffn(x)[t]       = W₂ · relu or gelu (W₁ · x[t] + b₁) + b₂
    norm last       n = norm₁(x + attention(x)),   y = norm₂(n + ffn(n))
    norm first      r = x + attention(norm₁(x)),   y = r + ffn(norm₂(r))

A mask leaves out the keys where it is not zero, whatever its dtype: the fast path takes no additive
masks. Whole rows are computed in float64 here, as each element needs its whole token. Source:
Vaswani et al., "Attention Is All You Need", 2017; ATen/native/transformers/transformer.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod, sqrt
from typing import Any

import torch

from forwardpass.nouns.explanations import Equation, Term
from forwardpass.operators._sums import Arguments, Element, numbers, only_first, summed, times
from forwardpass.operators.activation import gelu
from forwardpass.operators.softmax import exponents

Tensor = torch.Tensor

LAYER = "aten._transformer_encoder_layer_fwd"
COVERS = (LAYER, "aten._native_multi_head_attention")
FORMULA = {
    "_transformer_encoder_layer_fwd": "ffn and attention, each added to x and normalised",
    "_native_multi_head_attention": "W · softmax(q · kᵀ · scale) · v + b",
}


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    """q, k and v, scores, mix and projection; for the layer also the two products of its ffn.

    A nested tensor counts sample by sample: its `nested_shapes` are read where it has them.
    """
    queries = _samples(arguments["src" if operator == LAYER else "query"])
    keys = queries if operator == LAYER else _samples(arguments["key"])
    width = arguments["embed_dim"]
    total = 0
    for (tokens, _), (others, _) in zip(queries, keys, strict=True):
        projections = 2 * (tokens + others) * width * width
        total += projections + 2 * tokens * others * width
        if operator == LAYER:
            total += 2 * tokens * width * arguments["ffn_weight_1"].shape[0]
    return total


def _samples(tensor: Any) -> Sequence[tuple[int, int]]:
    """The shape [tokens width] of each sample."""
    nested = getattr(tensor, "nested_shapes", None)
    if nested is not None:
        return nested
    if getattr(tensor, "is_nested", False):
        return [tuple(sample.shape) for sample in tensor.unbind()]
    *batch, tokens, width = tensor.shape
    return [(tokens, width)] * prod(batch)


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`attention`, then for the layer `residual`, `norm`, `ffn` and so on, up to `y`."""
    only_first(operator, output)
    sample, token, channel = element
    of = {name: _wide(value) for name, value in arguments.items()}
    if operator != LAYER:
        query, key, value = (_rows(arguments[name], sample) for name in ("query", "key", "value"))
        mix = _mix(arguments, of, sample, token, query, key, value, arguments["num_head"])
        weight, bias = of["proj_weight"], of["proj_bias"]
        return [_affine("y", "W_o", "mix", weight, bias, mix, channel)]
    return _layer(arguments, of, _rows(arguments["src"], sample), sample, token, channel)


def _layer(
    arguments: Arguments,
    of: dict[str, Any],
    x: Tensor,
    sample: int,
    token: int,
    channel: int,
) -> list[Equation]:
    norm_first = arguments["norm_first"]
    seen = _norm(arguments, of, 1, x) if norm_first else x
    mix = _mix(arguments, of, sample, token, seen, seen, seen, arguments["num_heads"])
    weight, bias = of["proj_weight"], of["proj_bias"]
    attention = _affine("attention", "W_o", "mix", weight, bias, mix, channel)
    residual = x[token] + weight @ mix + bias
    first = Equation("residual", "x + attention", float(residual[channel]))

    normed = _norm(arguments, of, 2 if norm_first else 1, residual)
    norm = Equation("norm", "norm(residual)", float(normed[channel]))
    inner = of["ffn_weight_1"] @ normed + of["ffn_bias_1"]
    active = [gelu(z) if arguments["use_gelu"] else max(0.0, z) for z in numbers(inner)]
    hidden = torch.tensor(active, dtype=torch.float64)
    weight, bias = of["ffn_weight_2"], of["ffn_bias_2"]
    ffn = _affine("ffn", "W₂", "hidden", weight, bias, hidden, channel)
    steps = [attention, first, norm, ffn]
    if norm_first:
        return [*steps, Equation("y", "residual + ffn", first.value + ffn.value)]
    second = normed + weight @ hidden + bias
    y = _norm(arguments, of, 2, second)
    return [
        *steps,
        Equation("second residual", "norm + ffn", float(second[channel])),
        Equation("y", "norm₂(second residual)", float(y[channel])),
    ]


def _wide(value: Any) -> Any:
    nested = getattr(value, "is_nested", False)
    return value.detach().double().cpu() if isinstance(value, Tensor) and not nested else value


def _rows(tensor: Tensor, sample: int) -> Tensor:
    """The tokens of one sample of a padded or a nested tensor: [tokens width], in float64."""
    return tensor.unbind()[sample].detach().double().cpu()


def _affine(
    name: str, letter: str, of: str, weight: Tensor, bias: Tensor, x: Tensor, o: int
) -> Equation:
    pairs = zip(numbers(weight[o]), numbers(x), strict=True)
    products = [times(f"{letter}[{o}, {j}] · {of}[{j}]", w, v) for j, (w, v) in enumerate(pairs)]
    added = Term(f"b[{o}]", float(bias[o]))
    return summed(name, f"Σ {letter}[{o}, j] · {of}[j] + b[{o}]", [*products, added])


def _norm(arguments: Arguments, of: dict[str, Any], number: int, x: Tensor) -> Tensor:
    away = x - x.mean(-1, keepdim=True)
    spread = ((away * away).mean(-1, keepdim=True) + arguments["eps"]) ** 0.5
    return away / spread * of[f"norm_weight_{number}"] + of[f"norm_bias_{number}"]


def _mix(
    arguments: Arguments,
    of: dict[str, Any],
    sample: int,
    token: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
) -> Tensor:
    """What the heads gather for one token, side by side: [width]."""
    w_q, w_k, w_v = of["qkv_weight"].chunk(3)
    b_q, b_k, b_v = of["qkv_bias"].chunk(3)
    q, k, v = w_q @ query[token] + b_q, key @ w_k.T + b_k, value @ w_v.T + b_v
    width = q.shape[0] // heads
    parts: list[Tensor] = []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        scores = numbers(k[:, own] @ q[own] / sqrt(width))
        masked = _masked(arguments, sample, head, token, len(scores))
        open_scores = [-inf if m else s for s, m in zip(scores, masked, strict=True)]
        powers = exponents(open_scores)
        total = sum(powers)
        p = torch.tensor([power / total for power in powers], dtype=torch.float64)
        parts.append(p @ v[:, own])
    return torch.cat(parts)


def _masked(arguments: Arguments, sample: int, head: int, token: int, keys: int) -> list[bool]:
    """Which keys a query must not see.

    A mask of type 0 is [L S], of type 1 [batch S], of type 2 [batch heads L S].
    """
    mask: Tensor | None = arguments["mask"]
    if mask is None:
        return [False] * keys
    row = {0: (token,), 1: (sample,)}.get(arguments["mask_type"], (sample, head, token))
    return [bool(value) for value in numbers(mask[row])]
