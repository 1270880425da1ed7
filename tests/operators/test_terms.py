"""The arithmetic of single elements against what torch computed, in all modes, wide and narrow."""

from __future__ import annotations

from itertools import chain, product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from operator_calls import MODES, assert_explained, calls_of, explained_calls
from torch import nn

from forwardpass import operators

aten = torch.ops.aten
R = torch.randn
FUNCTIONS = (
    "exp", "log", "sqrt", "rsqrt", "reciprocal", "square", "neg", "abs", "sin", "cos", "erf",
)  # fmt: skip
INDICES = torch.tensor([[1, 2, 4], [4, 3, 2]])
PASSES: dict[str, tuple[Any, ...]] = {
    "linear": (nn.Linear(4, 3), R(2, 5, 4)),
    "linear of one vector": (nn.Linear(4, 3), R(4)),
    "linear without bias": (nn.Linear(4, 3, bias=False), R(2, 5, 4)),
    "linear with a vector as weight": (F.linear, R(2, 4), R(4)),
    "bilinear": (nn.Bilinear(3, 4, 2), R(2, 3), R(2, 4)),
    "bilinear without bias": (nn.Bilinear(3, 4, 2, bias=False), R(3), R(4)),
    "mm": (torch.mm, R(2, 3), R(3, 4)),
    "mv": (torch.mv, R(2, 3), R(3)),
    "dot": (torch.dot, R(3), R(3)),
    "vdot": (torch.vdot, R(3), R(3)),
    "matmul 1 1": (torch.matmul, R(3), R(3)),
    "matmul 1 3": (torch.matmul, R(3), R(2, 3, 4)),
    "matmul 3 1": (torch.matmul, R(2, 4, 3), R(3)),
    "matmul 3 2": (torch.matmul, R(2, 2, 3), R(3, 4)),
    "matmul 4 3": (torch.matmul, R(2, 1, 2, 3), R(5, 3, 4)),
    "addmm": (lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2), R(4), R(2, 3), R(3, 4)),
    "addmm, beta 0": (lambda c, a, b: torch.addmm(c, a, b, beta=0), R(4), R(2, 3), R(3, 4)),
    "addmm of a column": (torch.addmm, R(2, 1), R(2, 3), R(3, 4)),
    "addmv": (torch.addmv, R(2), R(2, 3), R(3)),
    "baddbmm": (torch.baddbmm, R(2, 1, 5), R(2, 3, 4), R(2, 4, 5)),
    "addbmm": (torch.addbmm, R(3, 5), R(2, 3, 4), R(2, 4, 5)),
    "relu of addmm": (lambda *v: aten._addmm_activation(*v), R(4), R(2, 3), R(3, 4)),
    "gelu of addmm": (
        lambda *v: aten._addmm_activation(*v, use_gelu=True), R(4), R(2, 3), R(3, 4),
    ),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1), R(2, 4, 9)),
    "conv2d": (nn.Conv2d(4, 6, (3, 2), padding=(1, 0), dilation=2, groups=2), R(2, 4, 9, 9)),
    "conv2d of one sample": (nn.Conv2d(4, 6, 3, bias=False), R(4, 6, 6)),
    "conv2d, same": (nn.Conv2d(4, 6, 4, padding="same"), R(2, 4, 7, 7)),
    "conv1d, valid": (nn.Conv1d(4, 6, 4, padding="valid"), R(2, 4, 7)),
    "conv1d, circular": (nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular"), R(2, 4, 9)),
    "conv3d": (nn.Conv3d(2, 3, 2), R(1, 2, 4, 4, 4)),
    "conv_transpose1d": (nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1), R(2, 4, 5)),
    "conv_transpose2d": (
        nn.ConvTranspose2d(4, 6, 3, stride=(2, 3), padding=1, groups=2, dilation=2),
        R(2, 4, 5, 5),
    ),
    "conv_transpose3d": (nn.ConvTranspose3d(2, 3, 2, stride=2), R(2, 3, 3, 3)),
    "_convolution": (
        lambda x, w: aten._convolution(
            x, w, None, [1], [0], [1], False, [0], 1, False, False, True, True
        ),
        R(1, 2, 5),
        R(3, 2, 2),
    ),
    "embedding": (nn.Embedding(10, 4, padding_idx=2), INDICES),
    "bag of means": (nn.EmbeddingBag(10, 4), INDICES),
    "bag of maxima": (nn.EmbeddingBag(10, 4, mode="max"), INDICES),
    "bag of sums, padded": (nn.EmbeddingBag(10, 4, mode="sum", padding_idx=4), INDICES),
    "bag with offsets": (
        nn.EmbeddingBag(10, 4, include_last_offset=True), INDICES[0], torch.tensor([0, 0, 3]),
    ),
    "weighted bag": (
        lambda w, s: F.embedding_bag(INDICES, w, mode="sum", per_sample_weights=s),
        R(10, 4),
        R(2, 3),
    ),
    "layer norm": (nn.LayerNorm((3, 4)), R(2, 3, 4)),
    "layer norm, bare": (nn.LayerNorm(4, elementwise_affine=False), R(2, 3, 4)),
    "layer norm without bias": (nn.LayerNorm(4, bias=False), R(2, 3, 4)),
    "group norm": (nn.GroupNorm(2, 4), R(2, 4, 3, 3)),
    "rms norm": (nn.RMSNorm((3, 4)), R(2, 3, 4)),
    "rms norm with eps": (nn.RMSNorm(4, eps=0.1, elementwise_affine=False), R(2, 3, 4)),
    "batch norm 1d": (nn.BatchNorm1d(4), R(5, 4)),
    "batch norm 2d": (nn.BatchNorm2d(4), R(2, 4, 3, 3)),
    "batch norm without statistics": (nn.BatchNorm1d(4, track_running_stats=False), R(5, 4)),
    "batch norm, bare": (nn.BatchNorm1d(4, affine=False), R(5, 4, 2)),
    "instance norm": (nn.InstanceNorm1d(4, affine=True), R(3, 4, 5)),
    "instance norm with statistics": (
        nn.InstanceNorm2d(4, track_running_stats=True), R(3, 4, 5, 5),
    ),
    "softmax": (nn.Softmax(1), R(2, 3, 4)),
    "log-softmax": (nn.LogSoftmax(-1), R(2, 3)),
    "softmax of a number": (lambda x: torch.softmax(x, 0), R(())),
    "softmax of all −∞": (nn.Softmax(-1), torch.full((2, 3), -torch.inf)),
    "safe softmax": (lambda x: aten._safe_softmax(x, -1), torch.full((2, 3), -torch.inf)),
    "max pool 1d": (nn.MaxPool1d(3, 2, padding=1, dilation=2), R(2, 3, 9)),
    "max pool 2d": (nn.MaxPool2d((2, 3), ceil_mode=True), R(2, 3, 8, 8)),
    "max pool 3d": (nn.MaxPool3d(2), R(3, 4, 4, 4)),
    "max pool of NaN": (nn.MaxPool2d(2), torch.full((1, 2, 4, 4), torch.nan)),
    "avg pool 1d": (nn.AvgPool1d(3, 2, padding=1), R(2, 3, 8)),
    "avg pool 2d": (nn.AvgPool2d(3, 2, padding=1, ceil_mode=True), R(2, 3, 8, 8)),
    "avg pool 2d without padding": (
        nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=False), R(2, 3, 8, 8),
    ),
    "avg pool 3d": (nn.AvgPool3d(2, divisor_override=3), R(2, 3, 4, 4, 4)),
    "adaptive avg pool 1d": (nn.AdaptiveAvgPool1d(3), R(2, 3, 8)),
    "adaptive avg pool 2d": (nn.AdaptiveAvgPool2d((3, 2)), R(2, 3, 8, 7)),
    "adaptive avg pool to one": (nn.AdaptiveAvgPool2d(1), R(2, 3, 8, 7)),
    "adaptive avg pool 3d": (nn.AdaptiveAvgPool3d(2), R(2, 3, 5, 5, 5)),
    "adaptive max pool 1d": (nn.AdaptiveMaxPool1d(3), R(2, 3, 8)),
    "adaptive max pool 2d": (nn.AdaptiveMaxPool2d((3, 2)), R(2, 3, 8, 7)),
    "adaptive max pool 3d": (nn.AdaptiveMaxPool3d(2), R(2, 3, 5, 5, 5)),
    "residual": (torch.add, R(2, 3, 4), R(3, 4)),
    "scaled sum": (lambda a, b: torch.add(a, b, alpha=0.5), R(3, 1), R(2, 1, 4)),
    "in place": (lambda a, b: a.add_(b, alpha=2).sub_(b).mul_(b).div_(b), R(2, 3), R(3)),
    "with numbers": (lambda a: 2 - (a + 1) * 3 / 4 - 0.5, R(2, 3)),
    "rsub": (lambda a, b: torch.rsub(a, b, alpha=2), R(2, 3), R(3)),
    "floor and trunc": (
        lambda a, b: (
            torch.div(a, b, rounding_mode="floor"), torch.div(a, b, rounding_mode="trunc"),
        ),
        R(2, 3),
        R(3),
    ),
    "by zero": (lambda a: a / 0, torch.tensor([1.0, -1.0, 0.0])),
    "integers": (lambda a: a * 2 + 1, torch.arange(6)),
    "prelu of channels": (nn.PReLU(4), R(2, 4, 3)),
    "glu": (nn.GLU(1), R(2, 4, 3)),
    "gelu by tanh": (nn.GELU("tanh"), R(2, 4)),
    "relu6": (lambda x: aten.relu6(x * 10), R(2, 4)),
    "softplus": (nn.Softplus(beta=2, threshold=1), R(4, 4)),
    "threshold": (nn.Threshold(0.1, 0.2), R(4, 4)),
    "threshold in place": (nn.Threshold(0.1, 0.2, inplace=True), R(4, 4)),
    "elu of three": (lambda x: aten.elu(x, 0.5, 1.5, 0.7), R(4, 4)),
    "gelu in place": (lambda x: aten.gelu_(x), R(4, 4)),
    "functions": (
        lambda x: [getattr(torch, name)(x) for name in FUNCTIONS],
        torch.cat([R(4), R(4).abs() + 0.1, torch.tensor([0.0, torch.inf, torch.nan, -torch.inf])]),
    ),
    "functions in place": (lambda x: x.abs_().sqrt_().neg_().exp_().rsqrt_(), R(2, 3)),
    "powers": (lambda x: (x**2, 2.0**x, x.abs() ** x, x**-0.5, x**0), R(2, 4)),
    "clamps": (
        lambda x, low: (x.clamp(-0.5, 0.5), x.clamp_min(0.1), x.clamp_max(0.1), x.clamp(min=low)),
        torch.cat([R(4), torch.tensor([torch.nan])]),
        R(1),
    ),
    "the larger": (lambda a, b: (torch.maximum(a, b), torch.minimum(a, b)), R(3, 1), R(1, 4)),
    "choices": (
        lambda a, b: (torch.where(a > 0, a, b), a.masked_fill(b > 0, -torch.inf)), R(3, 1), R(3, 4),
    ),
    "sums": (
        lambda x: (x.sum(), x.sum(1), x.sum((0, -1), keepdim=True), x.mean(), x.mean(-1, True)),
        R(2, 3, 4),
    ),
    "extremes": (
        lambda x: (x.amax(1), x.amin((0, 2)), x.max(), x.max(-1)[0], x.min(0, keepdim=True)[0]),
        R(2, 3, 4),
    ),
    "extremes of NaN": (lambda x: (x.amax(), x.min()), torch.tensor([1.0, torch.nan])),
    "spreads": (
        lambda x: (x.var(-1), x.var((0, 1), correction=0), x.std(1, keepdim=True), x.var()),
        R(2, 3, 4),
    ),
    "reductions of a number": (lambda x: (x.sum(), x.mean(), x.amax()), R(())),
}  # fmt: skip
EDGES = torch.tensor([0.0, 50, -50, torch.nan])
ACTIVATIONS = (
    (nn.ReLU, nn.ELU, nn.SELU, nn.CELU, nn.LeakyReLU, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid),
    (nn.Mish, nn.SiLU, nn.ReLU6),
    (nn.GELU, nn.Sigmoid, nn.Tanh, nn.PReLU, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink),
    (nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.GLU),
)
for activation in chain(*ACTIVATIONS):
    PASSES[activation.__name__] = (activation(), torch.cat([R(8), EDGES]))
for activation in chain(*ACTIVATIONS[:2]):
    PASSES[f"{activation.__name__} in place"] = (activation(inplace=True), R(2, 4))


def wide(given: Any, dtype: torch.dtype) -> Any:
    if isinstance(given, torch.Tensor):
        return given.to(dtype).clone() if given.is_floating_point() else given.clone()
    return given


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("name", PASSES)
def test_single_elements(name: str, dtype: torch.dtype) -> None:
    function, *inputs = PASSES[name]
    for mode, train in product(MODES, (False, True)):
        if isinstance(function, nn.Module):
            function.to(dtype).train(train)
        elif train:
            continue
        explained = explained_calls(function, *(wide(x, dtype) for x in inputs), mode=mode)
        assert explained


def attended(*given: torch.Tensor, **options: Any) -> torch.Tensor:
    return F.scaled_dot_product_attention(*given, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"attn_mask": R(5, 5)},
        {"attn_mask": R(5, 5) > 0},
        {"attn_mask": torch.tensor([[False], [True], [True], [False], [True]]).expand(5, 5)},
    ],
    ids=["plain", "causal", "scale", "additive", "boolean", "masked rows"],
)
def test_attention(options: dict[str, Any], rank: int, dtype: torch.dtype, mode: str) -> None:
    given = [R(2, 2, 5, 4, dtype=dtype) for _ in range(3)]
    given = [x if rank == 4 else x[0] for x in given]
    options = {k: wide(v, dtype) for k, v in options.items()}
    explained = explained_calls(lambda *x: attended(*x, **options), *given, mode=mode)
    assert explained
    assert rank == 3 or any("scaled_dot_product" in name for name in explained)


@pytest.mark.parametrize("mode", MODES)
def test_attention_of_grouped_queries_and_wide_values(mode: str) -> None:
    q, k, v = R(2, 4, 5, 8), R(2, 2, 7, 8), R(2, 2, 7, 8)
    assert explained_calls(lambda *x: attended(*x, enable_gqa=True), q, k, v, mode=mode)
    assert explained_calls(attended, q, R(1, 4, 7, 8), R(1, 4, 7, 3), mode=mode)


def test_attention_as_plain_mathematics() -> None:
    q, k, v = R(2, 4, 5, 8).double(), R(2, 2, 7, 8).double(), R(2, 2, 7, 8).double()
    call = calls_of(attended_by_mathematics, q, k, v, mode="inference_mode")[0]
    assert call.operator == "aten._scaled_dot_product_attention_math"
    assert_explained(call)


def attended_by_mathematics(*given: torch.Tensor) -> Any:
    return aten._scaled_dot_product_attention_math(*given, enable_gqa=True)


def test_dropout_of_weights_is_refused() -> None:
    q = R(1, 2, 3, 4)
    (call,) = calls_of(lambda x: attended(x, x, x, dropout_p=0.5), q, mode="inference_mode")
    file = operators.find(call.operator)
    assert file is not None
    with pytest.raises(LookupError, match="dropout"):
        file.terms(call.operator, call.arguments, 0, (0, 0, 0, 0))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w, m, v: aten._batch_norm_impl_index(x, w, w, m, v, True, 0.1, 1e-5, False)[:3],
        lambda x, w, m, v: aten._native_batch_norm_legit(x, w, w, m, v, True, 0.1, 1e-5),
        lambda x, w, m, v: aten._native_batch_norm_legit(x, w, None, m, v, False, 0.1, 1e-5),
        lambda x, w, m, v: aten._native_batch_norm_legit.no_stats(x, w, w, True, 0.1, 1e-5),
        lambda x, w, m, v: aten._native_batch_norm_legit_no_training(x, w, w, m, v, 0.1, 1e-5),
        lambda x, w, m, v: aten._native_batch_norm_legit_functional(x, w, w, m, v, True, 0.1, 1e-5),
        lambda x, w, m, v: aten._batch_norm_with_update(x, w, w, m, v, 0.1, 1e-5),
        lambda x, w, m, v: aten._batch_norm_no_update(x, w, w, m, v, 0.1, 1e-5),
    ],
)
def test_batch_norm_by_its_other_names(function: Any) -> None:
    given = R(3, 4, 2).double(), R(4).double(), R(4).double(), R(4).double() ** 2
    assert explained_calls(function, *given, mode="inference_mode")


def test_fused_rms_norm() -> None:
    x, w = R(2, 3, 4).double(), R(4).double()
    norm = aten._fused_rms_norm
    assert explained_calls(lambda *v: norm(v[0], [4], v[1], 0.1), x, w, mode="no_grad")


def test_bags_for_inference_only() -> None:
    w, offsets = R(10, 4).double(), torch.tensor([0, 2])
    assert explained_calls(
        lambda *v: aten._embedding_bag_forward_only(v[0], INDICES.flatten(), offsets, mode=1),
        w,
        mode="no_grad",
    )


@pytest.mark.parametrize("layer", [nn.MaxPool2d(3, 2, padding=1), nn.AdaptiveMaxPool2d(3)])
def test_a_max_pool_names_its_winner(layer: nn.Module) -> None:
    (call,) = calls_of(layer, R(2, 3, 8, 7), mode="no_grad")
    assert_explained(call, outputs=(0, 1), count=8)


def test_a_window_keeps_every_candidate() -> None:
    (call,) = calls_of(nn.MaxPool2d(2), torch.arange(16.0).reshape(1, 1, 4, 4))
    file = operators.find(call.operator)
    assert file is not None
    winner, y = file.terms(call.operator, call.arguments, 0, (0, 0, 1, 0))
    assert winner.value == 13
    assert [term.value for term in y.terms] == [8, 9, 12, 13]


def test_dropout_says_what_it_cannot_know() -> None:
    x = R(2, 3)
    for p, train, expected in ((0.5, False, float(x[0, 0])), (1.0, True, 0.0)):
        (call,) = calls_of(lambda v, p=p, t=train: F.dropout(v, p, t), x, mode="inference_mode")
        file = operators.find(call.operator)
        assert file is not None
        assert file.terms(call.operator, call.arguments, 0, (0, 0))[-1].value == expected
    (call,) = calls_of(lambda v: aten.native_dropout(v, 0.5, True), x)
    with pytest.raises(LookupError, match="not known"):
        file.terms(call.operator, call.arguments, 0, (0, 0))


def test_complex_numbers_and_truth_values_are_refused() -> None:
    z, b = torch.randn(2, 2, dtype=torch.complex64), torch.tensor([True])
    for function, given in ((torch.mm, (z, z)), (torch.add, (b, b))):
        (call,) = calls_of(function, *given)
        file = operators.find(call.operator)
        assert file is not None
        with pytest.raises(LookupError):
            file.terms(call.operator, call.arguments, 0, (0,) * call.outputs[0].dim())


def test_a_linear_layer_is_written_as_people_write_it() -> None:
    layer, x = nn.Linear(4, 8), R(2, 4)
    for mode in ("no_grad", "inference_mode"):
        call = next(c for c in calls_of(layer, x, mode=mode) if operators.find(c.operator))
        file = operators.find(call.operator)
        assert file is not None
        total, bias, y = file.terms(call.operator, call.arguments, 0, (1, 7))
        assert (total.name, bias.name, y.name) == ("sum", "bias", "y")
        assert total.terms[3].label == "W[7, 3] · x[1, 3]"
        assert total.terms[3].factors == (layer.weight[7, 3].item(), x[1, 3].item())
        assert bias.formula == "b[7]"
        assert total.formula == "Σ W[7, k] · x[1, k]"
    (call,) = calls_of(torch.mm, R(2, 3), R(3, 4))
    (y,) = file.terms(call.operator, call.arguments, 0, (1, 2))
    assert y.terms[0].label == "A[1, 0] · B[0, 2]"


def test_padding_positions_are_left_out() -> None:
    (call,) = calls_of(nn.Conv2d(2, 3, 3, padding=1), R(1, 2, 5, 5))
    file = operators.find(call.operator)
    assert file is not None
    corner = file.terms(call.operator, call.arguments, 0, (0, 2, 0, 0))[0]
    assert len(corner.terms) == 2 * 4
    assert corner.terms[0].label == "W[2, 0, 1, 1] · x[0, 0, 0, 0]"


@pytest.mark.parametrize("sizes", [(3, 1), (1, 5), (1, 1), (3, 4)])
def test_a_lowered_layer_of_any_size_is_known_as_one(sizes: tuple[int, int]) -> None:
    call = calls_of(nn.Linear(*sizes), R(2, sizes[0]), mode="no_grad")[-1]
    assert call.operator == "aten.addmm"
    file = operators.find(call.operator)
    assert file is not None
    total = file.terms(call.operator, call.arguments, 0, (1, 0))[0]
    assert total.terms[0].label == "W[0, 0] · x[1, 0]"
