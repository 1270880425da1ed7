"""Activations: a function of each element by itself (`glu`: of two).

    relu          max(0, x)                       relu6         min(max(0, x), 6)
    sigmoid σ     1 / (1 + exp(−x))               tanh          (eˣ − e⁻ˣ) / (eˣ + e⁻ˣ)
    silu          x · σ(x)                        log_sigmoid   log σ(x)
    gelu          x · ½ (1 + erf(x / √2))         or, by tanh,
                  ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))
    elu           x above 0, else α (eˣ − 1)      selu          1.0507 · elu with α = 1.6733
    celu          x above 0, else α (e^(x/α) − 1)
    leaky_relu    x above 0, else slope · x       prelu         the same, its slope a weight
    hardtanh      min(max(least, x), most)        threshold     x above the threshold, else value
    hardsigmoid   min(max(0, x + 3), 6) / 6       hardswish     x · hardsigmoid(x)
    softplus      log(1 + e^(βx)) / β             mish          x · tanh(softplus(x))
    hardshrink    x where |x| > λ, else 0         softshrink    x moved by λ towards 0
    glu           a · σ(b), the halves of x along one axis

A trailing underscore means in place. Sources: Hendrycks and Gimpel, 2016 (gelu); Clevert et al.,
2015 (elu); Klambauer et al., 2017 (selu); Barron, 2017 (celu); He et al., 2015 (prelu); Elfwing et
al., 2017 (silu); Howard et al., 2019 (hardswish); Misra, 2019 (mish); Dauphin et al., 2016 (glu);
the constants are those of the PyTorch documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erf, exp, expm1, isnan, log1p, pi, sqrt, tanh
from typing import TYPE_CHECKING, Any

from forwardpass.nouns.explanations import Equation
from forwardpass.operators._sums import Arguments, Element, at, only_first, place

if TYPE_CHECKING:
    from torch import Tensor

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946
_SOFTPLUS_IS_X = 40.0  # from here on, log(1 + eˣ) is x in double precision


def sigmoid(x: float) -> float:
    """Written so that exp never overflows."""
    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))


def gelu(x: float, *, by_tanh: bool = False) -> float:
    if by_tanh:
        return x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))
    return x / 2 * (1 + erf(x / sqrt(2)))


def _softplus(x: float) -> float:
    return x if x > _SOFTPLUS_IS_X else log1p(exp(x))


def _elu(x: float, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> float:
    return scale * x if x > 0 else scale * alpha * expm1(input_scale * x)


def _gelu(x: float, of: Arguments) -> tuple[str, float]:
    if of.get("approximate", "none") == "tanh":
        return "½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))", gelu(x, by_tanh=True)
    return "x · ½ (1 + erf(x / √2))", gelu(x)


def _elu_line(x: float, of: Arguments) -> tuple[str, float]:
    alpha, scale, inner = (float(of[name]) for name in ("alpha", "scale", "input_scale"))
    times, within = ("" if v == 1 else f"{v:g} · " for v in (scale, inner))
    line = f"{times}x" if x > 0 else f"{times}{alpha:g} · (exp({within}x) − 1)"
    return line, _elu(x, alpha, scale, inner)


def _celu(x: float, of: Arguments) -> tuple[str, float]:
    alpha = float(of["alpha"])
    line = "x" if x > 0 else f"{alpha:g} · (exp(x / {alpha:g}) − 1)"
    return line, _elu(x, alpha, input_scale=1 / alpha)


def _leaky(x: float, slope: float) -> tuple[str, float]:
    return ("x", x) if x > 0 else (f"{slope:g} · x", slope * x)


def _clamped(x: float, least: float, most: float) -> tuple[str, float]:
    return f"min(max({least:g}, x), {most:g})", min(max(least, x), most)


def _threshold(x: float, of: Arguments) -> tuple[str, float]:
    above = x > of["threshold"]
    line = f"x, as it is above {of['threshold']:g}"
    return (line, x) if above else (f"{of['value']:g}", float(of["value"]))


def _softplus_line(x: float, of: Arguments) -> tuple[str, float]:
    beta = float(of["beta"])
    if beta * x > of["threshold"]:
        return f"x, as {beta:g} · x > {of['threshold']:g}", x
    return f"log(1 + exp({beta:g} · x)) / {beta:g}", _softplus(beta * x) / beta


def _softshrink(x: float, of: Arguments) -> tuple[str, float]:
    by = float(of["lambd"])
    if abs(x) <= by:
        return f"0, as |x| ≤ {by:g}", 0.0
    return (f"x − {by:g}", x - by) if x > 0 else (f"x + {by:g}", x + by)


def _hardshrink(x: float, of: Arguments) -> tuple[str, float]:
    by = float(of["lambd"])
    return ("x", x) if abs(x) > by else (f"0, as |x| ≤ {by:g}", 0.0)


# Each takes x and the arguments, and gives the formula as it applies to this x, and the value.
FORMULAS: dict[str, Callable[[float, Arguments], tuple[str, float]]] = {
    "aten.relu": lambda x, of: ("max(0, x)", max(0.0, x)),
    "aten.relu6": lambda x, of: _clamped(x, 0.0, 6.0),
    "aten.sigmoid": lambda x, of: ("1 / (1 + exp(−x))", sigmoid(x)),
    "aten.tanh": lambda x, of: ("tanh(x)", tanh(x)),
    "aten.silu": lambda x, of: ("x / (1 + exp(−x))", x * sigmoid(x)),
    "aten.gelu": _gelu,
    "aten.elu": _elu_line,
    "aten.selu": lambda x, of: (
        "1.0507 · x" if x > 0 else "1.0507 · 1.6733 · (exp(x) − 1)",
        _elu(x, _SELU_ALPHA, _SELU_SCALE),
    ),
    "aten.celu": _celu,
    "aten.leaky_relu": lambda x, of: _leaky(x, float(of["negative_slope"])),
    "aten.hardtanh": lambda x, of: _clamped(x, float(of["min_val"]), float(of["max_val"])),
    "aten.hardsigmoid": lambda x, of: ("min(max(0, x + 3), 6) / 6", min(max(0.0, x + 3), 6) / 6),
    "aten.hardswish": lambda x, of: (
        "x · min(max(0, x + 3), 6) / 6",
        x * min(max(0.0, x + 3), 6) / 6,
    ),
    "aten.mish": lambda x, of: ("x · tanh(log(1 + exp(x)))", x * tanh(_softplus(x))),
    "aten.softplus": _softplus_line,
    "aten.threshold": _threshold,
    "aten.hardshrink": _hardshrink,
    "aten.softshrink": _softshrink,
    "aten.log_sigmoid": lambda x, of: (
        "min(0, x) − log(1 + exp(−|x|))",
        min(0.0, x) - log1p(exp(-abs(x))),
    ),
}
IN_PLACE = (
    "aten.relu_",
    "aten.relu6_",
    "aten.sigmoid_",
    "aten.tanh_",
    "aten.silu_",
    "aten.gelu_",
    "aten.elu_",
    "aten.selu_",
    "aten.celu_",
    "aten.leaky_relu_",
    "aten.hardtanh_",
    "aten.hardsigmoid_",
    "aten.hardswish_",
    "aten.mish_",
    "aten.threshold_",
)
COVERS = (
    *FORMULAS,
    *IN_PLACE,
    "aten.log_sigmoid_forward",
    "aten.prelu",
    "aten._prelu_kernel",
    "aten.glu",
)
FORMULA = {
    "relu": "max(0, x)",
    "relu6": "min(max(0, x), 6)",
    "sigmoid": "1 / (1 + exp(−x))",
    "tanh": "tanh(x)",
    "silu": "x / (1 + exp(−x))",
    "gelu": "x · ½ (1 + erf(x / √2)), or nearly, by tanh",
    "elu": "scale · (x, or α (exp(x) − 1) below 0)",
    "selu": "1.0507 · (x, or 1.6733 (exp(x) − 1) below 0)",
    "celu": "x, or α (exp(x / α) − 1) below 0",
    "leaky_relu": "x, or slope · x below 0",
    "hardtanh": "min(max(least, x), most)",
    "hardsigmoid": "min(max(0, x + 3), 6) / 6",
    "hardswish": "x · min(max(0, x + 3), 6) / 6",
    "mish": "x · tanh(log(1 + exp(x)))",
    "softplus": "log(1 + exp(β x)) / β",
    "threshold": "x above the threshold, else value",
    "hardshrink": "x where |x| > λ, else 0",
    "softshrink": "x moved by λ towards 0",
    **dict.fromkeys(("log_sigmoid", "log_sigmoid_forward"), "min(0, x) − log(1 + exp(−|x|))"),
    **dict.fromkeys(("prelu", "_prelu_kernel"), "x, or slope · x below 0"),
    "glu": "a / (1 + exp(−b))",
}


def macs(operator: str, arguments: Arguments, outputs: Any) -> int:
    return 0


def line(operator: str, x: float, arguments: Arguments) -> Equation:
    """`y` of one of FORMULAS."""
    formula, value = FORMULAS[operator](x, arguments)
    return Equation("y", formula, x if isnan(x) else value)


def terms(operator: str, arguments: Arguments, output: int, element: Element) -> list[Equation]:
    """`x`, `y`; with the slope between them for `prelu`; `a`, `b`, `y` for `glu`."""
    only_first(operator, output)
    source: Tensor = arguments["self"]
    if operator == "aten.glu":
        return _gated(source, arguments["dim"] % source.dim(), element)
    x = Equation("x", place("x", *element), at(source, element))
    if operator in ("aten.prelu", "aten._prelu_kernel"):
        slope = _slope(arguments["weight"], source, element)
        return [x, slope, Equation("y", *_leaky(x.value, slope.value))]
    plain = operator.removesuffix("_forward").removesuffix("_")
    return [x, line(plain, x.value, arguments)]


def _slope(weight: Tensor, source: Tensor, element: Element) -> Equation:
    """The weight of the channel, which is axis 1; or of all channels."""
    channel = element[1] if weight.numel() > 1 and source.dim() > 1 else 0
    own = channel if weight.numel() > 1 else 0
    return Equation("slope", f"W[{own}]", at(weight.reshape(-1), (own,)))


def _gated(source: Tensor, axis: int, element: Element) -> list[Equation]:
    half = source.shape[axis] // 2
    there = (*element[:axis], element[axis] + half, *element[axis + 1 :])
    a = Equation("a", place("x", *element), at(source, element))
    b = Equation("b", place("x", *there), at(source, there))
    return [a, b, Equation("y", "a / (1 + exp(−b))", a.value * sigmoid(b.value))]
