"""∂L/∂(an element of an argument) against autograd, for L = Σ δ · y."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from operator_calls import calls_of, mapped, some_elements

from forwardpass import operators


def R(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


CASES: dict[str, tuple[Any, dict[str, torch.Tensor]]] = {
    "linear": (F.linear, {"input": R(2, 5, 4), "weight": R(3, 4), "bias": R(3)}),
    "linear of a vector": (F.linear, {"input": R(4), "weight": R(3, 4), "bias": R(3)}),
    "mm": (torch.mm, {"self": R(2, 3), "mat2": R(3, 4)}),
    "bmm": (torch.bmm, {"self": R(2, 2, 3), "mat2": R(2, 3, 4)}),
    "mv": (torch.mv, {"self": R(2, 3), "vec": R(3)}),
    "dot": (torch.dot, {"self": R(3), "tensor": R(3)}),
    "matmul": (torch.matmul, {"self": R(2, 1, 2, 3), "other": R(5, 3, 4)}),
    "matmul 1 3": (torch.matmul, {"self": R(3), "other": R(5, 3, 4)}),
    "matmul 3 1": (torch.matmul, {"self": R(5, 4, 3), "other": R(3)}),
    "addmm": (
        lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2),
        {"self": R(4), "mat1": R(2, 3), "mat2": R(3, 4)},
    ),
    "addmm of a layer": (torch.addmm, {"self": R(4), "mat1": R(2, 3), "mat2": R(4, 3).t()}),
    "baddbmm": (torch.baddbmm, {"self": R(2, 1, 4), "batch1": R(2, 2, 3), "batch2": R(2, 3, 4)}),
    "addbmm": (torch.addbmm, {"self": R(2, 4), "batch1": R(3, 2, 3), "batch2": R(3, 3, 4)}),
    "conv1d": (F.conv1d, {"input": R(2, 4, 7), "weight": R(6, 4, 3), "bias": R(6)}),
    "conv2d": (
        lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=(1, 2), dilation=(2, 1), groups=2),
        {"input": R(2, 4, 6, 6), "weight": R(6, 2, 2, 3), "bias": R(6)},
    ),
    "conv2d, same": (
        lambda x, w: F.conv2d(x, w, padding="same"),
        {"input": R(1, 2, 5, 5), "weight": R(3, 2, 2, 4)},
    ),
    "conv_transpose2d": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, output_padding=1, groups=2),
        {"input": R(2, 4, 4, 4), "weight": R(4, 3, 3, 3), "bias": R(6)},
    ),
    "embedding": (
        lambda w: F.embedding(torch.tensor([[1, 2], [1, 0]]), w, padding_idx=0),
        {"weight": R(4, 3)},
    ),
    "layer_norm": (
        lambda x, w, b: F.layer_norm(x, (3, 4), w, b),
        {"input": R(2, 3, 4), "weight": R(3, 4), "bias": R(3, 4)},
    ),
    "layer_norm, bare": (lambda x: F.layer_norm(x, (4,)), {"input": R(2, 4)}),
    "add": (lambda a, b: torch.add(a, b, alpha=2), {"self": R(3, 1), "other": R(2, 1, 4)}),
    "sub": (torch.sub, {"self": R(2, 3), "other": R(3)}),
    "rsub": (lambda a, b: torch.rsub(a, b, alpha=3), {"self": R(2, 3), "other": R(3)}),
    "mul": (torch.mul, {"self": R(2, 3, 1), "other": R(3, 4)}),
}


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode"])
@pytest.mark.parametrize("case", CASES)
def test_against_autograd(case: str, mode: str) -> None:
    function, given = CASES[case]
    call = next(c for c in calls_of(function, *given.values(), mode=mode) if explains(c.operator))
    file = operators.find(call.operator)
    assert file is not None
    arguments = mapped(list(call.arguments.values()), torch.Tensor.clone)  # no inference tensors
    arguments = dict(zip(call.arguments, arguments, strict=True))
    leaves = {
        name: value.detach().requires_grad_()
        for name, value in arguments.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }
    namespace = getattr(torch.ops.aten, call.operator.removeprefix("aten."))
    y = namespace(**{**arguments, **leaves})
    y = y[0] if isinstance(y, tuple) else y
    delta = torch.randn_like(y)
    y.backward(delta)
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        for element in some_elements(leaf, 5):
            steps = file.gradient(call.operator, call.arguments, name, element, delta)
            expected = float(leaf.grad[element])
            assert math.isclose(steps[-1].value, expected, rel_tol=1e-9, abs_tol=1e-9), name


def explains(operator: str) -> bool:
    return hasattr(operators.find(operator), "gradient")


def test_an_unknown_argument_is_refused() -> None:
    (call,) = calls_of(torch.mm, R(2, 3), R(3, 4))
    file = operators.find(call.operator)
    assert file is not None
    with pytest.raises(LookupError, match="no gradient of 'mat3'"):
        file.gradient(call.operator, call.arguments, "mat3", (0, 0), R(2, 4))
