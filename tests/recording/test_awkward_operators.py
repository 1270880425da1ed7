"""What PyTorch does behind a module's back: fused paths, packed rows, transforms, other layouts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from functions import Fn
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from untouched import operators, untouched, valid

from forwardpass.checking import check
from forwardpass.probing import record


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("grad", ["on", "off", "inference"])
def test_recurrent_layers_take_packed_sequences(kind: Any, grad: Any) -> None:
    def forward(self: Any, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]

    model = Fn(forward, rnn=kind(3, 4, batch_first=True, bidirectional=True)).eval()
    done = valid(model, (torch.randn(2, 5, 3), torch.tensor([2, 5])), grad=grad)
    gates = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[kind]
    assert not done.totals.unknown
    assert done.totals.macs == 2 * 7 * gates * 4 * (3 + 4)  # 7 valid steps, two directions


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("grad", ["on", "off", "inference"])
def test_recurrent_layers_count_every_gate(kind: Any, grad: Any) -> None:
    model = kind(3, 4, num_layers=2, batch_first=True).eval()
    done = valid(model, torch.randn(2, 5, 3), grad=grad)
    gates = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[kind]
    assert done.totals.macs == 2 * 5 * gates * 4 * ((3 + 4) + (4 + 4))
    assert not done.totals.unknown


def encoder() -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 2).eval()


def mask(rows: int, tokens: int) -> Tensor:
    hidden = torch.zeros(rows, tokens, dtype=torch.bool)
    hidden[0, tokens // 2 :] = True
    return hidden


def test_the_nested_fast_path_is_recorded_as_it_ran() -> None:
    model, x = encoder(), torch.randn(2, 6, 8)
    inputs = {"src": x, "src_key_padding_mask": mask(2, 6)}
    done = valid(model, inputs, grad="off")
    fused = [call for call in done.calls if "encoder_layer" in call.short]
    assert len(fused) == 2
    nested = done.values[fused[0].inputs[0]]
    assert nested.nested == ((3, 8), (6, 8))
    assert nested.shape == (2,)
    with torch.no_grad():
        assert torch.equal(
            record(model, inputs, grad="off", values="all").tensors[done.outputs["output"]],
            model(x, src_key_padding_mask=mask(2, 6)),
        )


def test_the_fast_path_without_a_mask_and_the_expanded_one_count_the_same_macs() -> None:
    model, x = encoder(), torch.randn(2, 6, 8)
    fused = valid(model, x, grad="off")
    expanded = valid(model, x, grad="off", expanded=True)
    assert fused.totals.calls < 5
    assert expanded.totals.calls > 20
    tokens, width, hidden = 12, 8, 16
    layer = tokens * (4 * width * width + 2 * width * hidden) + 2 * tokens * 6 * width
    assert fused.totals.macs == expanded.totals.macs == 2 * layer


def test_vmap_is_recorded_by_the_operators_that_it_makes() -> None:
    model = Fn(
        lambda self, x: torch.vmap(lambda row: F.linear(row, self.linear.weight).relu())(x),
        linear=nn.Linear(4, 3),
    )
    x = torch.randn(5, 4)
    done = valid(model, x, values="all", grad="off")
    assert done.totals.macs == 5 * 4 * 3
    expected = F.linear(x, model.linear.weight).relu()
    assert torch.allclose(done.tensors[done.outputs["output"]], expected)


def test_a_gradient_inside_of_forward_is_recorded() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.linear(leaf).tanh().sum(), leaf)
        return slope

    for grad in ("on", "off"):
        done = valid(Fn(forward, linear=nn.Linear(4, 3)), torch.randn(2, 4), grad=grad)
        assert "tanh_backward" in operators(done)


def test_func_grad_inside_of_forward_is_recorded() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.func.grad(lambda leaf: self.linear(leaf).tanh().sum())(x)

    done = valid(Fn(forward, linear=nn.Linear(4, 3)), torch.randn(2, 4))
    assert "tanh_backward" in operators(done)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("grad", ["on", "off"])
def test_checkpointed_parts_are_recorded(reentrant: bool, grad: Any) -> None:
    from torch.utils.checkpoint import checkpoint

    def forward(self: Any, x: Tensor) -> Tensor:
        return checkpoint(self.part, x, use_reentrant=reentrant)

    model = Fn(forward, part=nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(0.5)))
    x = torch.randn(2, 4, requires_grad=True)
    done = valid(model, x, grad=grad, mode="train")
    assert done.totals.macs == 2 * 4 * 4
    assert {done.module(c).path for c in done.calls} >= {"part.0", "part.1"}


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return slope * 2


def test_a_custom_autograd_function_is_recorded_inside_with_its_own_node() -> None:
    model = Fn(lambda self, x: Doubled.apply(self.linear(x)).relu(), linear=nn.Linear(4, 3))
    done = valid(model, torch.randn(2, 4), grad="on")
    (double,) = [call for call in done.calls if call.short == "mul"]
    assert "Doubled" in double.grad_fn
    assert done.reaches["output"] == ("linear.weight", "linear.bias")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_quantized_linear_is_recorded_and_its_macs_are_not_zero_in_silence() -> None:
    plain = nn.Sequential(nn.Linear(8, 4), nn.ReLU()).eval()
    model = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear}, dtype=torch.qint8)
    x = torch.randn(2, 8)
    with torch.no_grad(), untouched(model, x):
        done = record(model, x, values="all")
        found = done.validate("e")
        expected = model(x)
    assert torch.equal(done.tensors[done.outputs["output"]], expected)
    assert not found.faults, found
    assert any("linear_dynamic" in name for name in done.totals.unknown)
    (call,) = [call for call in done.calls if call.operator in done.totals.unknown]
    assert call.macs is None
    assert call.flops is None


def test_a_meta_module_is_recorded_and_its_validation_is_incomplete() -> None:
    model = nn.Sequential(nn.Linear(8, 4, device="meta"), nn.ReLU())
    x = torch.empty(2, 8, device="meta")
    with untouched(model):
        done = record(model, x, grad="off", statistics=True)
        found = done.validate("e")
    assert done.totals.macs == 2 * 8 * 4
    assert done.device == "meta"
    assert not done.statistics
    assert found.verdict == "incomplete"
    assert all("meta" in exempt.reason for exempt in found.exempt)


def test_sparse_tensors_are_recorded() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.sparse.mm(x.to_sparse(), self.linear.weight.t()).relu()

    x = torch.tensor([[0.0, 1.0, 0.0, 2.0], [0.0, 0.0, 3.0, 0.0]])
    done = valid(Fn(forward, linear=nn.Linear(4, 3)), x, grad="off")
    (sparse,) = {v.layout for v in done.values if v.origin == "call"} - {"strided"}
    assert sparse == "sparse_coo"


def test_a_sparse_input_is_recorded() -> None:
    weight = nn.Parameter(torch.randn(4, 3))
    model = Fn(lambda self, x: torch.sparse.mm(x, self.weight), weight=weight)
    done = valid(model, torch.eye(4).to_sparse(), grad="off")
    assert done.values[0].strides is None


def test_a_nested_input_is_recorded() -> None:
    x = torch.nested.nested_tensor([torch.randn(2, 4), torch.randn(5, 4)])
    done = valid(Fn(lambda self, x: self.linear(x), linear=nn.Linear(4, 3)), x, grad="off")
    assert done.values[0].nested == ((2, 4), (5, 4))
    assert done.totals.macs == 7 * 4 * 3


def test_a_jagged_input_is_recorded_or_refused_in_one_sentence() -> None:
    x = torch.nested.nested_tensor([torch.randn(2, 4), torch.randn(5, 4)], layout=torch.jagged)
    model = Fn(lambda self, x: self.linear(x).sin(), linear=nn.Linear(4, 3))
    done = record(model, x, grad="off")
    assert "sin" in operators(done)
    found = done.validate("e")
    assert not found.faults


@pytest.mark.parametrize("grad", ["on", "off", "inference"])
def test_a_jagged_tensor_that_forward_makes_is_recorded(grad: Any) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        jagged = torch.nested.nested_tensor([x[0, :1], x[1]], layout=torch.jagged)
        return torch.nested.to_padded_tensor(self.linear(jagged).relu(), 0.0)

    model, x = Fn(forward, linear=nn.Linear(4, 3)), torch.randn(2, 2, 4)
    with torch.inference_mode():
        model(x)  # the first jagged tensor of a process makes a constant that PyTorch keeps
    done = record(model, x, grad=grad)
    assert not done.validate("e").faults
    assert {"linear", "relu"} & set(operators(done))
    assert not any(call.short.startswith("sym_") for call in done.calls)
    assert ((1, 4), (2, 4)) in [value.nested for value in done.values]


def test_complex_numbers_and_fourier_transforms_are_recorded() -> None:
    done = valid(Fn(lambda self, x: torch.fft.irfft(torch.fft.rfft(x) * 2j)), torch.randn(3, 8))
    assert any(value.dtype == "c64" for value in done.values)


def test_einsum_and_bilinear_count_their_macs() -> None:
    a, b = torch.randn(2, 3, 4), torch.randn(2, 4, 5)
    done = valid(Fn(lambda self, a, b: torch.einsum("bij,bjk->bik", a, b)), (a, b))
    assert done.totals.macs == 2 * 3 * 4 * 5
    done = valid(nn.Bilinear(3, 4, 5), (torch.randn(2, 3), torch.randn(2, 4)))
    assert done.totals.unknown or done.totals.macs >= 2 * 5 * 3 * 4


@pytest.mark.parametrize("grad", ["on", "off", "inference"])
def test_attention_counts_scores_and_mix(grad: Any) -> None:
    q = torch.randn(2, 2, 6, 4)
    done = valid(Fn(lambda self, q: F.scaled_dot_product_attention(q, q, q)), q, grad=grad)
    assert done.totals.macs == 2 * 2 * (2 * 6 * 6 * 4)
    assert not done.totals.unknown


@torch.library.custom_op("fwdtest::mul", mutates_args=())
def add_one(x: Tensor, other: float) -> Tensor:
    """Of the name of an operator of PyTorch, and something else."""
    return x + 1


def test_an_operator_of_another_library_goes_by_its_whole_name() -> None:
    module = Fn(lambda self, x: add_one(self.fc(x), 0.0), fc=nn.Linear(3, 4))
    done = valid(module, torch.randn(2, 3))
    call = done.calls[-1]
    assert call.operator == "fwdtest.mul.default"
    assert call.packet == call.short == "fwdtest.mul"
    assert "fwdtest.mul" in str(done)
    assert not check(module, torch.randn(2, 3), rules=["unused"]).findings
