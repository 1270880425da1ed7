"""What batch-leak, batch-variance and one-by-one say, and when they say nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass.checking import check
from forwardpass.checking.words import share
from forwardpass.nouns.findings import Finding, Findings


class Function(nn.Module):
    """A layer from 8 to 4 and what comes after it."""

    def __init__(self, then: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)
        self.then = then

    def forward(self, x: Tensor) -> Any:
        return self.then(self.layer(x))


def only(found: Findings) -> Finding:
    assert len(found) == 1, list(found)
    return found.findings[0]


def skipped(found: Findings) -> str:
    assert not found.ran
    return found.skipped[0].reason


def leaks(module: Any, inputs: Any, **how: Any) -> Findings:
    return check(module, inputs, rules=["batch-leak"], **how)


def varies(module: Any, inputs: Any, **how: Any) -> Findings:
    return check(module, inputs, rules=["batch-variance"], **how)


def test_distances_are_said_of_a_scale() -> None:
    assert share(0.12) == "12.00% of its scale"
    assert share(0.00034) == "3.4e-04 of its scale"
    assert share(34.2) == "34.2 × its scale"
    assert share(1.2e21) == "1.2e+21 × its scale"


# -- batch-leak ----------------------------------------------------------------------------------


def test_a_leak_says_how_far_and_where() -> None:
    found = only(leaks(Function(lambda y: y - y.mean(0)), torch.randn(4, 8)))
    assert found.severity == "error"
    assert found.message.startswith("row 0 of output moves by ")
    assert found.message.endswith("when the other 3 rows are replaced; it crosses at .mean")
    assert found.remedy.startswith("axis 0 holds the rows here")
    assert found.evidence["rows"] == 4
    assert float(found.evidence["moves"]) > 0.01


def test_the_index_is_that_of_the_call_in_the_pass_as_it_was_given() -> None:
    """In train mode the rows are looked at in eval mode, where dropout is no call."""
    module = nn.Sequential(nn.Dropout(0.5), Function(lambda y: y - y.mean(0))).train()
    inputs = torch.randn(4, 8)
    found = only(leaks(module, inputs))
    record = fwd.record(module, inputs)
    assert record.calls[found.call].short == "mean"


def test_only_one_of_several_outputs_leaks() -> None:
    then = Function(lambda y: {"own": y, "shared": y - y.mean(0)})
    assert only(leaks(then, torch.randn(4, 8))).evidence["output"] == "shared"


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (torch.randn(1, 8), "one row was given: give two"),
        (torch.randn(1, 8).expand(4, 8).clone(), "all rows are alike"),
    ],
)
def test_too_little_to_tell(inputs: Tensor, reason: str) -> None:
    assert reason in skipped(leaks(Function(lambda y: y), inputs))


def test_a_loss_is_no_output_of_a_row() -> None:
    found = leaks(Function(lambda y: y.square().mean()), torch.randn(4, 8))
    assert skipped(found) == "no output has one entry a row"


def test_random_numbers_of_the_same_shape_are_the_same_for_each_row() -> None:
    module = Function(lambda y: torch.dropout(y, 0.5, train=True))
    assert not leaks(module, torch.randn(4, 8)).findings


def test_what_draws_without_a_seed_proves_nothing() -> None:
    own = torch.Generator()
    module = Function(lambda y: y + torch.randn(y.shape, generator=own))
    assert "the same inputs give other outputs" in skipped(leaks(module, torch.randn(4, 8)))


def test_without_a_signature_axis_0_may_be_time() -> None:
    lstm, steps = nn.LSTM(8, 6).eval(), torch.randn(5, 4, 8)
    assert "axis 1 of the inputs acts as a batch" in skipped(leaks(lstm, steps))
    signed = fwd.Model(lstm, "input: f32[batch time 8]")
    assert only(leaks(signed, {"input": steps})).severity == "error"
    right = fwd.Model(lstm, "input: f32[time batch 8]")
    assert not leaks(right, {"input": steps}).findings


def test_dynamic_quantization_is_a_note() -> None:
    plain = nn.Sequential(nn.Linear(8, 8)).eval()
    module = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear})
    for found in (leaks(module, torch.randn(4, 8)), varies(module, torch.randn(4, 8))):
        assert only(found).severity == "note"
        assert "one scale for the whole batch" in only(found).remedy


def test_sizes_that_follow_the_data_are_not_compared() -> None:
    """The padded length of packed rows is that of the longest one."""

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(8, 6, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
            return nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]

    given = torch.randn(4, 6, 8), torch.tensor([6, 2, 4, 3])
    assert not leaks(Packed().eval(), given).findings
    assert not varies(Packed().eval(), given).findings


# -- batch-variance ------------------------------------------------------------------------------


def test_a_row_that_raises_alone_is_found_where_it_raises() -> None:
    found = only(varies(Function(checked), torch.randn(4, 8)))
    assert "one row alone raises, while 4 and 5 rows are computed: ValueError" in found.message
    assert found.site is not None
    assert found.site.function == "checked"


def checked(y: Tensor) -> Tensor:
    if len(y) == 1:
        raise ValueError("one row is no batch")
    return y


def test_a_model_for_one_number_of_rows_is_skipped() -> None:
    found = varies(Function(lambda y: y.view(4, 2, 2)), torch.randn(4, 8))
    assert "a variant of the pass raised" in skipped(found)


def test_little_is_a_warning_and_much_an_error() -> None:
    little = Function(lambda y: y * (1 + 0.001 * len(y)))
    assert only(varies(little, torch.randn(4, 8))).severity == "warning"
    much = Function(lambda y: y * len(y))
    assert only(varies(much, torch.randn(4, 8))).severity == "error"


# -- one-by-one ----------------------------------------------------------------------------------


def test_a_loop_says_what_a_batch_saves() -> None:
    class Looping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.layer(row) for row in x])

    found = only(check(Looping().eval(), torch.randn(8, 64), rules=["one-by-one"]))
    assert found.severity == "warning"
    assert found.message.startswith("a loop over the rows: ")
    assert "for 8 rows its products and layers take" in found.message
    assert "as one batch" in found.message
    assert float(found.evidence["apart_seconds"]) > float(found.evidence["together_seconds"])


def test_layers_that_loop_alike_are_said_once() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.layer(row) for row in x])

    module = nn.Sequential(*(Part() for _ in range(5)))
    found = only(check(module, torch.randn(4, 8), rules=["one-by-one"], mode="eval"))
    assert "in 5 modules" in found.message


def called(module: nn.Module, inputs: list[Tensor]) -> Findings:
    with fwd.watch(module) as records:
        for value in inputs:
            module(value)
    return check(module, inputs[0], rules=["one-by-one"], callers=tuple(records), mode="eval")


def test_rows_given_one_by_one_without_a_batch_axis() -> None:
    module = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
    found = only(called(module, [torch.randn(32) for _ in range(12)]))
    assert found.message.startswith("called 12 times with one row: 12 rows take ")
    assert found.call == -1
    assert found.site is not None


def test_what_goes_back_in_cannot_be_batched() -> None:
    module = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)).eval()
    assert not called(module, [torch.randn(1, 32) for _ in range(12)]).findings


def test_rows_of_other_shapes_are_not_counted() -> None:
    module = nn.Conv1d(2, 4, 3).eval()
    assert not called(module, [torch.randn(1, 2, 5 + n) for n in range(12)]).findings
