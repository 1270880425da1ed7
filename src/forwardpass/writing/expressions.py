"""Expressions: how a person writes the operators that need more than their name.

Each function takes the SpelledArguments of a call and gives its expression, or None where the
readable form would not compute the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from forwardpass.nouns.calls import Ref
from forwardpass.writing.literals import SpelledArguments

Speller = Callable[[SpelledArguments], str | None]

_LONGEST_DIMS = 3


def method(a: SpelledArguments, name: str, rest: str | None = None) -> str:
    return f"{a.literal(a.positional[0])}.{name}({a.rest(1) if rest is None else rest})"


def reduced(a: SpelledArguments) -> str | None:
    """`x.mean(-1, keepdim=True)`."""
    dims = a.raw("dim") if a.has("dim") else None
    if not isinstance(dims, list) or len(dims) != 1 or len(a.positional) < 2:
        return method(a, a.short)
    rest = a.rest(2)
    return method(a, a.short, f"{dims[0]}{', ' if rest else ''}{rest}")


def rsub(a: SpelledArguments) -> str | None:
    return f"{a.text('other')} - {a.text('self')}" if a.raw("alpha") == 1 else None


def power(a: SpelledArguments) -> str | None:
    base, exponent = a.text("self"), a.text("exponent")
    return f"({base}) ** {exponent}" if base.startswith("-") else f"{base} ** {exponent}"


def negative(a: SpelledArguments) -> str | None:
    return f"-{a.text('self')}"


# Contractions


def sums_apart(a: SpelledArguments) -> bool:
    """Whether the bias may be added afterwards: half floats are rounded once in the operator."""
    return a.out.dtype in ("f32", "f64", "i64", "c64", "c128")


def product(a: SpelledArguments) -> str | None:
    left, right = a.positional[:2]
    return f"{a.literal(left)} @ {a.literal(right)}" if a.overload == "default" else None


def biased_product(a: SpelledArguments) -> str | None:
    names = {"addmm": ("mat1", "mat2"), "baddbmm": ("batch1", "batch2"), "addmv": ("mat", "vec")}
    left, right = names[a.short]
    if a.overload != "default" or a.raw("beta") != 1 or a.raw("alpha") != 1:
        return None
    if not sums_apart(a):
        return f"torch.{a.short}({a.rest(0)})"
    return f"{a.text(left)} @ {a.text(right)} + {a.text('self')}"


def linear(a: SpelledArguments) -> str | None:
    data, weight, bias = a.value("input"), a.value("weight"), a.value("bias")
    strided = data is not None and data.layout == "strided"
    if weight is None or len(weight.shape) != 2 or not strided:
        return f"F.linear({a.rest(0)})"
    if bias is None:
        return f"{a.text('input')} @ {a.text('weight')}.T"
    if not sums_apart(a):
        return f"F.linear({a.rest(0)})"
    return f"{a.text('input')} @ {a.text('weight')}.T + {a.text('bias')}"


def convolution(a: SpelledArguments) -> str | None:
    weight, data = a.value("weight"), a.value("input")
    if weight is None or data is None or a.overload != "default":
        return None
    axes = len(weight.shape) - 2
    if axes not in (1, 2, 3) or len(data.shape) != axes + 2:
        return None
    head = f"{a.text('input')}, {a.text('weight')}{bias(a)}"
    tail = per_axis(a, stride=1, padding=0)
    if a.raw("transposed"):
        tail += per_axis(a, output_padding=0) + a.named(groups=1) + per_axis(a, dilation=1)
        return f"F.conv_transpose{axes}d({head}{tail})"
    return f"F.conv{axes}d({head}{tail}{per_axis(a, dilation=1)}{a.named(groups=1)})"


def bias(a: SpelledArguments) -> str:
    return "" if a.raw("bias") is None else f", {a.text('bias')}"


def per_axis(a: SpelledArguments, **usual: int) -> str:
    """`, stride=2` for `[2, 2]`; nothing for what is usual."""
    text = ""
    for name, value in usual.items():
        given = a.raw(name)
        if not isinstance(given, list):
            given = [given]
        if len(set(given)) > 1:
            text += f", {name}={a.literal(given)}"
        elif given and given[0] != value:
            text += f", {name}={a.literal(given[0])}"
    return text


def convolution_of(axes: int) -> Speller:
    def speller(a: SpelledArguments) -> str | None:
        if a.overload not in ("default", "padding"):
            return None
        tail = per_axis(a, stride=1, padding=0, dilation=1) + a.named(groups=1)
        return f"F.conv{axes}d({a.text('input')}, {a.text('weight')}{bias(a)}{tail})"

    return speller


def attention(a: SpelledArguments) -> str | None:
    if not a.first_only or a.raw("dropout_p") != 0.0:
        return None
    options = a.named(attn_mask=None, is_causal=False, scale=None)
    if a.has("enable_gqa"):
        options += a.named(enable_gqa=False)
    operands = ", ".join(a.text(name) for name in ("query", "key", "value"))
    return f"F.scaled_dot_product_attention({operands}{options})"


def embedding(a: SpelledArguments) -> str | None:
    ids = a.value("indices")
    if ids is None or not ids.shape:
        return None
    return f"{a.text('weight')}[{a.text('indices')}]"


# Normalisation, activation, pooling


def layer_norm(a: SpelledArguments) -> str | None:
    if not a.first_only:
        return None
    eps = a.raw("eps")
    shown = "" if eps == 1e-5 else f", eps={a.literal(eps)}"
    affine = [a.raw("weight"), a.raw("bias")]
    while affine and affine[-1] is None:
        affine.pop()
    operands = "".join(f", {a.literal(part)}" for part in affine)
    return f"F.layer_norm({a.text('input')}, {a.text('normalized_shape')}{operands}{shown})"


def rms_norm(a: SpelledArguments) -> str | None:
    if not a.first_only:
        return None
    named = a.named(weight=None, eps=None)
    return f"F.rms_norm({a.text('input')}, {a.text('normalized_shape')}{named})"


def group_norm(a: SpelledArguments) -> str | None:
    if not a.first_only:
        return None
    groups = a.text("group" if a.has("group") else "num_groups")
    options = a.named(weight=None, bias=None, eps=1e-5)
    return f"F.group_norm({a.text('input')}, {groups}{options})"


def batch_norm(a: SpelledArguments) -> str | None:
    training = a.has("training") and a.raw("training")
    if not a.first_only or training or a.raw("running_mean") is None:
        return None
    operands = ", ".join(
        a.text(name) for name in ("input", "running_mean", "running_var", "weight", "bias")
    )
    return f"F.batch_norm({operands}{a.named(eps=1e-5)})"


def softmax(a: SpelledArguments) -> str | None:
    name = a.short.strip("_")
    if a.has("half_to_float"):
        if a.raw("half_to_float"):
            return None
        return f"torch.{name}({a.text('self')}, {a.text('dim')})"
    return f"torch.{name}({a.rest(0)})"


def elu(a: SpelledArguments) -> str | None:
    if a.raw("scale") != 1 or a.raw("input_scale") != 1:
        return None
    return f"F.elu({a.text('self')}{a.named(alpha=1)})"


def max_pool(a: SpelledArguments) -> str | None:
    if not a.first_only:
        return None
    axes = a.short.removeprefix("max_pool")[0]
    stride = a.raw("stride")
    shown = "" if stride in ([], a.raw("kernel_size")) else per_axis(a, stride=-1)
    options = shown + per_axis(a, padding=0, dilation=1) + a.named(ceil_mode=False)
    return f"F.max_pool{axes}d({a.text('self')}, {size(a.raw('kernel_size'))}{options})"


def average_pool(a: SpelledArguments) -> str | None:
    stride = a.raw("stride")
    shown = "" if stride in ([], a.raw("kernel_size")) else per_axis(a, stride=-1)
    options = shown + per_axis(a, padding=0)
    options += a.named(ceil_mode=False, count_include_pad=True)
    if a.has("divisor_override"):
        options += a.named(divisor_override=None)
    return f"F.{a.short}({a.text('self')}, {size(a.raw('kernel_size'))}{options})"


def adaptive_pool(a: SpelledArguments) -> str | None:
    return f"F.{a.short.strip('_')}({a.text('self')}, {size(a.raw('output_size'))})"


def size(sizes: Any) -> str:
    return str(sizes[0]) if isinstance(sizes, list) and len(set(sizes)) == 1 else str(sizes)  # pyright: ignore[reportUnknownArgumentType]


# Views and indexing


def transposed(a: SpelledArguments) -> str | None:
    value = a.value("self")
    assert value is not None
    return f"{a.text('self')}.T" if len(value.shape) == 2 else f"{a.text('self')}.t()"


def spread(name: str) -> Speller:
    """`x.view(2, 3)` for a list of sizes or axes."""

    def speller(a: SpelledArguments) -> str | None:
        if len(a.positional) != 2 or any(a.keywords.values()):
            return None
        given = a.positional[1]
        inner = ", ".join(map(str, given)) if given and isinstance(given, list) else None
        return method(a, name, inner)

    return speller


def indexed(a: SpelledArguments, axis: int, index: str) -> str | None:
    value = a.value("self")
    if value is None or value.nested is not None:
        return None
    axis += len(value.shape) if axis < 0 else 0
    if axis >= _LONGEST_DIMS:
        return f"{a.text('self')}[..., {index}]" if axis == len(value.shape) - 1 else None
    return f"{a.text('self')}[{':, ' * axis}{index}]"


def select(a: SpelledArguments) -> str | None:
    return indexed(a, a.raw("dim"), a.text("index")) or method(a, "select")


def part(a: SpelledArguments) -> str | None:
    value, axis, step = a.value("self"), a.raw("dim"), a.raw("step")
    if value is None or value.nested is not None:
        return None
    start, end = a.raw("start") or 0, a.raw("end")
    size = value.shape[axis]
    stop = "" if end is None or end >= size else str(end)
    index = f"{start or ''}:{stop}" + (f":{step}" if step != 1 else "")
    return indexed(a, axis, index)


def index(a: SpelledArguments) -> str | None:
    if any(isinstance(item, Ref) and not a.values[item.value].shape for item in a.raw("indices")):
        return None  # Python would take a view
    inner = ", ".join(":" if item is None else a.literal(item) for item in a.raw("indices"))
    return f"{a.text('self')}[{inner}]"


def clone(a: SpelledArguments) -> str | None:
    value = a.value("self")
    dense = a.keywords.get("memory_format") is torch.contiguous_format
    if dense and value is not None and value.strides is not None:
        step, contiguous = 1, True
        for size, stride in zip(reversed(value.shape), reversed(value.strides), strict=True):
            contiguous = contiguous and (size == 1 or stride == step)
            step *= size
        if not contiguous and step:
            return f"{a.text('self')}.contiguous()"
    return f"{a.text('self')}.clone({a.rest(1)})"


def to(a: SpelledArguments) -> str | None:
    value, dtype = a.value("self"), a.raw("dtype")
    others = {k: v for k, v in a.keywords.items() if k not in ("dtype", "layout", "device")}
    if any(v and v is not torch.preserve_format for v in others.values()):
        return None
    if value is None or dtype is None or a.raw("layout") not in (None, torch.strided):
        return None
    if value.dtype == a.out.dtype or value.device != a.out.device:
        return None  # .to() would hand the tensor itself through
    return f"{a.text('self')}.to({a.literal(dtype)})"
