"""Spelling: one call of an operator as the expression that a person would write.

Each function takes the SpelledArguments of a call and gives its expression, or None where the
readable form would not compute the same: then the operator itself is called, which is always right.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable

import torch

from forwardpass.nouns.calls import Ref
from forwardpass.writing import expressions
from forwardpass.writing.expressions import Speller
from forwardpass.writing.literals import SpelledArguments

_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "remainder": "%", "floor_divide": "//",
    "gt": ">", "lt": "<", "ge": ">=", "le": "<=", "eq": "==", "ne": "!=", "bitwise_and": "&",
    "bitwise_or": "|", "bitwise_xor": "^", "__and__": "&", "__or__": "|",
}  # fmt: skip
_FUNCTIONS = frozenset(
    [
        "exp",
        "exp2",
        "expm1",
        "log",
        "log2",
        "log10",
        "log1p",
        "sqrt",
        "rsqrt",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "erf",
        "erfc",
        "abs",
        "sign",
        "floor",
        "ceil",
        "round",
        "trunc",
        "reciprocal",
        "square",
        "isnan",
        "isinf",
        "isfinite",
        "sigmoid",
        "tanh",
        "relu",
        "logical_not",
        "logical_and",
        "logical_or",
        "bitwise_not",
        "where",
        "maximum",
        "minimum",
        "atan2",
        "cat",
        "stack",
        "outer",
        "lstm",
        "gru",
        "rnn_tanh",
        "rnn_relu",
        "lerp",
        "addcmul",
        "addcdiv",
        "isin",
        "searchsorted",
        "tril",
        "triu",
        "arange",
        "zeros",
        "ones",
        "full",
        "empty",
        "eye",
        "linspace",
        "rand",
        "randn",
        "randint",
        "randperm",
        "zeros_like",
        "ones_like",
        "full_like",
        "empty_like",
        "rand_like",
        "randn_like",
        "scalar_tensor",
    ]
)
"""Written as torch.NAME: their arguments are those of the operator."""
_METHODS = frozenset(
    [
        "transpose",
        "unsqueeze",
        "squeeze",
        "flatten",
        "diagonal",
        "unfold",
        "movedim",
        "sum",
        "mean",
        "amax",
        "amin",
        "max",
        "min",
        "prod",
        "var",
        "std",
        "argmax",
        "argmin",
        "cumsum",
        "cumprod",
        "any",
        "all",
        "sort",
        "argsort",
        "topk",
        "gather",
        "scatter",
        "scatter_add",
        "index_select",
        "index_add",
        "masked_fill",
        "clamp",
        "clamp_min",
        "clamp_max",
        "roll",
        "flip",
        "split",
        "split_with_sizes",
        "chunk",
        "unbind",
        "repeat",
        "new_zeros",
        "new_ones",
        "new_full",
        "new_empty",
        "nonzero",
        "masked_select",
        "detach",
        "repeat_interleave",
        "logsumexp",
        "median",
        "tensor_split",
        "unsqueeze",
        "bernoulli",
    ]
)
"""Written as methods of their first argument."""
_ACTIVATIONS = frozenset(
    [
        "gelu",
        "silu",
        "mish",
        "hardswish",
        "hardsigmoid",
        "hardtanh",
        "leaky_relu",
        "softplus",
        "celu",
        "relu6",
        "selu",
    ]
)
_PLAINLY = {"alias": "detach", "unsafe_split": "split", "unsafe_chunk": "chunk"}
"""Without autograd these are the same."""
_REDUCES = frozenset(["sum", "mean", "amax", "amin", "var", "std", "logsumexp"])


def spell(a: SpelledArguments) -> tuple[str, bool]:
    """A call as one expression, and whether that gives only the first of several results."""
    if a.operator is None or not a.call.operator.startswith("aten."):
        return a.exact(), False
    text = _readable(a)
    return (a.exact(), False) if text is None else (text, a.short in _SPELLERS)


def _readable(a: SpelledArguments) -> str | None:
    own = _SPELLERS.get(a.short)
    if own is not None:
        return own(a)
    if "out" in a.overload or "out" in a.keywords or "names" in a.overload:
        return None
    if a.short in _INFIX:
        return _infix(a)
    if a.short in _FUNCTIONS:
        return f"torch.{a.short}({a.rest(0)})" if a.overload != "complex" else None
    if a.short in _ACTIVATIONS:
        return f"F.{a.short}({a.rest(0)})"
    if not (a.positional and isinstance(a.positional[0], Ref)):
        return None
    if a.short in _PLAINLY:
        return expressions.method(a, _PLAINLY[a.short])
    written = a.short.endswith("_") and not a.short.startswith("_")
    if a.short in _METHODS or (written and hasattr(torch.Tensor, a.short)):
        return expressions.method(a, a.short)
    return None


def _infix(a: SpelledArguments) -> str | None:
    if len(a.positional) != 2 or not any(isinstance(p, Ref) for p in a.positional):
        return None
    if a.overload not in ("Tensor", "Scalar"):
        return None
    if any(name not in ("alpha", "rounding_mode") for name in a.keywords):
        return None
    if a.has("alpha") and a.raw("alpha") != 1:
        return f"torch.{a.short}({a.rest(0)})"
    if a.keywords.get("rounding_mode") is not None:
        return f"torch.{a.short}({a.rest(0)})"
    left, right = (a.literal(p) for p in a.positional)
    return f"{left} {_INFIX[a.short]} {right}"


def _nothing_readable(_: SpelledArguments) -> str | None:
    return None


def _all(names: str, speller: Speller) -> Iterable[tuple[str, Speller]]:
    return ((name, speller) for name in names.split())


_SPELLERS: dict[str, Speller] = {
    "rsub": expressions.rsub,
    "pow": expressions.power,
    "neg": expressions.negative,
    "linear": expressions.linear,
    "convolution": expressions.convolution,
    "embedding": expressions.embedding,
    "elu": expressions.elu,
    "t": expressions.transposed,
    "view": expressions.spread("view"),
    "_unsafe_view": expressions.spread("view"),
    "reshape": expressions.spread("reshape"),
    "permute": expressions.spread("permute"),
    "expand": expressions.spread("expand"),
    "select": expressions.select,
    "slice": expressions.part,
    "index": expressions.index,
    "clone": expressions.clone,
    "_to_copy": expressions.to,
    "rms_norm": expressions.rms_norm,
    "_fused_rms_norm": expressions.rms_norm,
    "nonzero_static": _nothing_readable,
    "index_put_": _nothing_readable,
    "conv1d": expressions.convolution_of(1),
    "conv2d": expressions.convolution_of(2),
    "conv3d": expressions.convolution_of(3),
    "resize_": _nothing_readable,
    "set_": _nothing_readable,
    "dropout_": _nothing_readable,
    **dict(_all("mm bmm matmul mv dot", expressions.product)),
    **dict(_all("addmm baddbmm addmv", expressions.biased_product)),
    **dict(_all("layer_norm native_layer_norm", expressions.layer_norm)),
    **dict(_all("group_norm native_group_norm", expressions.group_norm)),
    **dict(
        _all(
            "batch_norm native_batch_norm _native_batch_norm_legit_no_training",
            expressions.batch_norm,
        )
    ),
    **dict(_all("softmax _softmax log_softmax _log_softmax", expressions.softmax)),
    **dict(
        _all(
            "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices",
            expressions.max_pool,
        )
    ),
    **dict(_all("avg_pool1d avg_pool2d avg_pool3d", expressions.average_pool)),
    **dict(
        _all(
            "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
            "_adaptive_avg_pool2d _adaptive_avg_pool3d",
            expressions.adaptive_pool,
        )
    ),
    **dict(
        _all(
            "scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu",
            expressions.attention,
        )
    ),
    **dict(_all(" ".join(_REDUCES), expressions.reduced)),
}

_NAMES = {
    "addmm": "linear", "mm": "product", "bmm": "product", "baddbmm": "product",
    "matmul": "product", "native_layer_norm": "layer_norm", "convolution": "conv",
    "native_batch_norm": "batch_norm", "_native_batch_norm_legit_no_training": "batch_norm",
    "native_group_norm": "group_norm", "_fused_rms_norm": "rms_norm", "_to_copy": "cast",
    "scaled_dot_product_attention": "attention", "clone": "copy", "_unsafe_view": "view",
    "_scaled_dot_product_flash_attention_for_cpu": "attention", "lift_fresh_copy": "constant",
    "max_pool2d_with_indices": "max_pool2d", "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "sum": "total", "max": "largest", "min": "smallest", "pow": "power", "abs": "magnitude",
    "_transformer_encoder_layer_fwd": "encoder_layer", "slice": "part", "index": "picked",
    "mkldnn_rnn_layer": "rnn_layer", "all": "every", "any": "some", "round": "rounded",
    "_native_multi_head_attention": "attention",
}  # fmt: skip


def name_of(short: str) -> str:
    """A name for what an operator gives."""
    name = _NAMES.get(short) or short.rpartition(".")[2].strip("_")
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"value_{name}"
