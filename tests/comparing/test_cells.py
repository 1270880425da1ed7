"""What stands under padding is nobody's result: padded batches are compared at their real cells."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass.comparing.cells import Cells, compared


class Encoder(nn.Module):
    def __init__(self, *, nested: bool = True) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        self.enc = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor, padding_mask: Tensor) -> Tensor:
        return self.head(self.enc(x, src_key_padding_mask=padding_mask))


def encoder(lengths: tuple[int, ...] = (7, 5, 2, 4)) -> tuple[Encoder, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    hidden = torch.arange(7) >= torch.tensor(lengths)[:, None]
    return Encoder().eval(), (torch.randn(4, 7, 16), hidden)


@pytest.mark.parametrize("lengths", [(7, 5, 2, 4), (3, 5, 2, 4)])
@pytest.mark.parametrize("modes", [("train", "eval"), ("eval", "train")])
def test_train_against_eval_of_a_padded_encoder(lengths: Any, modes: Any) -> None:
    net, inputs = encoder(lengths)
    found = fwd.diff(net, net, inputs, mode=modes[0], b_mode=modes[1], grad="inference")
    assert (found.verdict, found.guilty) == ("rounding", None)
    assert "output differs under the padding alone, which `padding_mask` marks" in found.notes
    side = "ab"[modes.index("eval")]
    assert f"{side} computes nested tensors in enc: they hold no padding" in found.notes
    assert found.outputs[0].rows == sum(lengths), "labels of padding do not flip"


def test_where_nobody_knows_the_padding_the_nested_tensors_are_named() -> None:
    net, (x, hidden) = encoder()

    class Other(Encoder):
        def forward(self, x: Tensor, hidden: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x, hidden)

    net.__class__ = Other
    found = fwd.diff(net, net, (x, hidden), mode="train", b_mode="eval", grad="inference")
    assert found.guilty is not None
    assert (found.verdict, found.guilty.path) == ("differs", "enc")
    assert "_nested_tensor_from_mask only in b" in found.guilty.missing


def test_a_fault_at_real_cells_is_not_hidden() -> None:
    net, inputs = encoder()
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.head.weight[0] *= 1.3
    found = fwd.diff(net, other, inputs, mode="train", b_mode="eval", grad="inference")
    assert found.guilty is not None
    assert (found.verdict, found.guilty.path) == ("differs", "head")
    real = ~inputs[1]
    with torch.no_grad():
        a, b = net(*inputs)[real], other(*inputs)[real]
    assert found.outputs[0].error.relative == pytest.approx(float((b - a).norm() / a.norm()), 1e-4)


def test_garbage_under_padding_is_no_difference_and_elsewhere_it_is() -> None:
    class Filled(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value, self.fc = value, nn.Linear(4, 4)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            h = self.fc(x)
            real = torch.arange(x.shape[1]) < lengths[:, None]
            return torch.where(real[..., None], h, self.value).tanh()

    lengths = torch.tensor([6, 3, 5])
    x = torch.randn(3, 6, 4) * (torch.arange(6) < lengths[:, None])[..., None]
    one, other = Filled(0.0), Filled(9.0)
    other.load_state_dict(one.state_dict())
    assert fwd.diff(one, other, (x, lengths)).verdict == "same"
    assert fwd.diff(one, other, (x, torch.tensor([6, 6, 6]))).verdict == "same"
    longer = (x, torch.tensor([6, 4, 5]))
    assert fwd.diff(one, one, (x, lengths), b_inputs=longer).verdict == "differs", "real in b"

    class Counted(Filled):
        def forward(self, x: Tensor, count: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x, count)

    one.__class__ = other.__class__ = Counted
    assert fwd.diff(one, other, (x, lengths)).verdict == "same", "zeros begin where it says"
    found = fwd.diff(one, other, (torch.randn(3, 6, 4), lengths))
    assert found.verdict == "differs", "a count may be anything"


@given(st.integers(0, 2), st.integers(0, 6), st.integers(0, 3))
def test_one_number_that_differs_is_found_unless_it_is_padding(
    row: int, cell: int, at: int
) -> None:
    real = torch.arange(7) < torch.tensor([7, 3, 5])[:, None]
    mine = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0))
    its = mine.clone()
    its[row, cell, at] += 1
    off = compared(mine, its, Cells("mask", real), 1e-6).error
    assert (off.relative > 1e-6) is bool(real[row, cell])
    turned = compared(mine.transpose(0, 1), its.transpose(0, 1), Cells("mask", real), 1e-6).error
    assert (turned.relative > 1e-6) is bool(real[row, cell])
    flat = compared(mine.flatten(0, 1), its.flatten(0, 1), Cells("mask", real), 1e-6).error
    assert (flat.relative > 1e-6) is bool(real[row, cell])
