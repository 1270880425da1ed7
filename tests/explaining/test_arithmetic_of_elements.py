"""The arithmetic of one element is that of the pass, in every layer and grad mode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from explained_models import GRADS, Fn, explained, mlp
from torch import Tensor, nn
from torch.nn import functional as F

from forwardpass import operators, record


@pytest.mark.parametrize("grad", GRADS)
def test_a_hidden_unit_down_to_its_last_term(grad: Any) -> None:
    module, x = mlp(), torch.randn(3, 6)
    affine, activation = explained(record(module, x, grad=grad), "fc1[1, 7]")
    total, bias, y = affine.steps
    assert [term.label for term in total.terms] == [f"W[7, {k}] · x[1, {k}]" for k in range(6)]
    weights = module.get_submodule("fc1").weight[7].tolist()
    assert [term.factors for term in total.terms] == list(zip(weights, x[1].tolist(), strict=True))
    assert bias.value == pytest.approx(module.get_submodule("fc1").bias[7].item())
    with torch.no_grad():
        assert y.value == pytest.approx(float(module.fc1(x)[1, 7]), abs=1e-6)
        assert activation.recorded == float(module[:2](x)[1, 7])
    assert (affine.module, activation.module) == ("fc1", "act")
    assert (affine.name, activation.name) == ("F.linear", "F.relu")
    assert affine.place.endswith("linear.py:134") or ".py:" in affine.place


def cnn(train: bool) -> nn.Module:
    layers = [nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)]
    module = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    norm: Any = module[1]
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    norm.weight.data.uniform_(0.5, 2)
    return module.train(train)


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize("train", [False, True])
def test_every_layer_of_a_convolutional_net(train: bool, grad: Any) -> None:
    module, x = cnn(train), torch.randn(2, 2, 8, 8)
    buffers = {name: b.clone() for name, b in module.named_buffers()}
    done = record(module, x, grad=grad)
    for path in "01234":
        shape = done.values[next(done.of_module(path)).outputs[0]].shape
        element = ", ".join(str(size - 1) for size in shape)
        explained(done, f"{path}[{element}]")
    explained(done, "5[1, 7]")  # flatten: the element of the pool
    explained(done, "output[1, 0]")
    for name, buffer in module.named_buffers():
        assert torch.equal(buffer, buffers[name]), f"{name} was touched"


def attends(self: Any, x: Tensor) -> Tensor:
    heads = x.unflatten(-1, (2, 4)).transpose(1, 2)
    return F.scaled_dot_product_attention(heads, heads, heads).transpose(1, 2).flatten(-2)


TOKENS = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1))
LAYERS: dict[str, Any] = {
    "layer_norm": nn.LayerNorm(8),
    "rms_norm": nn.RMSNorm(8),
    "group_norm": nn.Sequential(nn.Flatten(0, 1), nn.GroupNorm(2, 8)),
    "linear": nn.Linear(8, 8),
    "no bias": nn.Linear(8, 8, bias=False),
    "attention": Fn(attends),
    "lstm": nn.LSTM(8, 8, 2, batch_first=True),
    "gru": nn.GRU(8, 8, batch_first=True, bidirectional=True),
    "rnn": nn.RNN(8, 8),
    "softmax": nn.Softmax(-1),
    "log_softmax": nn.LogSoftmax(-1),
    "residual": Fn(lambda self, x: x + self.fc(x), fc=nn.Linear(8, 8)),
    "multihead": Fn(lambda self, x: self.a(x, x, x)[0], a=nn.MultiheadAttention(8, 2)),
    "gelu": nn.Sequential(nn.Linear(8, 8), nn.GELU()),
    "scaled": Fn(lambda self, x: x * 3 - 1),
    "products": Fn(lambda self, x: x @ x.mT),
    "conv1d": nn.Conv1d(3, 4, 3, padding=1, groups=1),
    "transposed": nn.ConvTranspose1d(3, 2, 3, stride=2),
    "layer": nn.TransformerEncoderLayer(8, 2, 8, batch_first=True, dropout=0.0),
}


@pytest.mark.parametrize("grad", GRADS)
@pytest.mark.parametrize("name", LAYERS)
def test_the_last_element_of_a_layer(name: str, grad: Any) -> None:
    done = record(LAYERS[name], TOKENS, grad=grad, mode="eval")
    path, serial = next(iter(done.outputs.items()))
    element = ", ".join(str(size - 1) for size in done.values[serial].shape)
    part, *_ = explained(done, f"{path}[{element}]")
    with torch.no_grad():
        made = LAYERS[name].eval()(TOKENS)
    made = made[0] if isinstance(made, tuple) else made
    index = tuple(int(i) for i in element.split(", "))
    assert part.recorded == pytest.approx(float(made[index]), abs=1e-5)


@pytest.mark.parametrize("expanded", [False, True])
def test_an_encoder_layer_fused_and_expanded(expanded: bool) -> None:
    module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    done = record(module, TOKENS, grad="off", expanded=expanded)
    part = explained(done, "output[1, 2, 3]")[0]
    fused = part.operator == "aten._transformer_encoder_layer_fwd.default"
    assert fused is not expanded
    if expanded:
        for path in ("self_attn", "norm1", "linear1", "linear2", "norm2"):
            explained(done, f"{path}[1, 2, 3]")


def test_an_embedding_and_what_reads_integers() -> None:
    ids = torch.tensor([[1, 2], [3, 4]])
    done = record(nn.Embedding(9, 4), ids, grad="off")
    (part,) = explained(done, "output[1, 0, 2]")
    assert "3" in part.steps[-1].formula


@pytest.mark.parametrize("grad", GRADS)
def test_an_element_of_a_linear_layer_in_three_axes(grad: Any) -> None:
    """Without grad PyTorch flattens, and the element moves through views."""
    done = record(nn.Sequential(nn.Linear(8, 5), nn.Tanh()), TOKENS, grad=grad)
    affine, activation = explained(done, "0[1, 2, 4]")
    assert affine.recorded == pytest.approx(float(LAYERS_0(done, TOKENS)[1, 2, 4]), abs=1e-6)
    assert activation.element == (1, 2, 4)
    assert affine.steps[-1].value == pytest.approx(activation.steps[0].value, abs=1e-6)


def LAYERS_0(done: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return done.this.module[0](x)


def test_dropout_says_that_what_it_kept_is_not_known() -> None:
    done = record(nn.Dropout(0.5).train(), TOKENS, grad="off")
    (part,) = done.explain("output[0, 0, 0]").parts
    assert part.steps or part.lacking
    kept = record(nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.5)).eval(), TOKENS, grad="off")
    assert explained(kept, "1[0, 0, 0]")[0].name == "F.linear"  # in eval it is no operator at all


def test_an_activation_in_place_is_of_what_it_was_given() -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True))
    x = torch.randn(2, 6)
    done = record(module, x, grad="off")
    for j in range(8):
        affine, activation = explained(done, f"0[1, {j}]")
        with torch.no_grad():
            assert affine.recorded == pytest.approx(float(module[0](x)[1, j]))
            assert activation.recorded == pytest.approx(float(module(x)[1, j]))


def test_a_fused_activation_is_one_part_with_its_own_line() -> None:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch._addmm_activation(self.fc.bias, x, self.fc.weight.t())

    done = record(Fused(), torch.randn(2, 6), grad="off")
    (part,) = explained(done, "output[1, 3]")
    assert [step.name for step in part.steps[-2:]] == ["z", "y"]


def test_an_operator_without_a_file_shows_its_inputs_with_their_ranges() -> None:
    done = record(Fn(lambda self, x: x.cumsum(0)), torch.tensor([1.0, -2.0, 4.0]), grad="off")
    (part,) = done.explain("output[2]").parts
    assert not part.steps
    assert part.value is None
    assert part.recorded == 3
    assert part.inputs == ("0 f32[3] from -2 to 4",) or "from -2 to 4" in part.inputs[0]
    printed = str(done.explain("output[2]"))
    assert "no breakdown: how cumsum computes is not written out" in printed
    assert "from -2 to 4" in printed


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_numbers_that_are_none_are_explained_too(bad: float) -> None:
    layers = [nn.Linear(3, 3), nn.GELU(), nn.Softmax(-1), nn.LayerNorm(3), nn.Sigmoid(), nn.SiLU()]
    for layer in [*layers, nn.Softplus(), nn.ELU(), nn.LogSigmoid(), nn.Tanh()]:
        done = record(layer, torch.tensor([[1.0, bad, 2.0]]), grad="off")
        said = str(done.explain("output[0, 1]"))
        assert "the pass computed" in said


def test_every_file_of_operators_is_met_by_these_models() -> None:
    """Grouped products, bilinear and the like have their own tests in tests/operators."""
    met: set[str] = set()
    models = [*LAYERS.values(), cnn(False)]
    for module in models:
        x = torch.randn(2, 2, 8, 8) if module is models[-1] else TOKENS
        for call in record(module, x, grad="off", mode="eval").calls:
            file = operators.find(call.operator.rpartition(".")[0])
            met.add(file.__name__.rpartition(".")[2] if file else "")
    assert {"linear", "convolution", "layer_norm", "batch_norm", "softmax", "attention", "lstm",
            "pooling", "activation", "arithmetic", "encoder_layer"} <= met  # fmt: skip
