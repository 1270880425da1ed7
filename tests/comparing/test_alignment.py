"""Which call corresponds to which: laws of the pairing, and the cases that people have."""

from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass.comparing.alignment import align
from forwardpass.comparing.fingerprints import peak_bytes
from forwardpass.comparing.pieces import counterpart
from forwardpass.comparing.sequences import paired

WORDS = st.lists(st.sampled_from("abcd"), max_size=12)


@given(WORDS, WORDS)
def test_pairs_are_equal_in_order_and_unique(left: list[str], right: list[str]) -> None:
    found = list(paired(left, right))
    assert all(left[i] == right[j] for i, j in found)
    assert found == sorted(found)
    assert len({i for i, _ in found}) == len({j for _, j in found}) == len(found)


@given(WORDS)
def test_a_sequence_pairs_with_itself(words: list[str]) -> None:
    assert list(paired(words, words)) == [(i, i) for i in range(len(words))]


@given(WORDS, WORDS, WORDS)
def test_what_was_put_in_between_stays_alone(
    before: list[str], between: list[str], after: list[str]
) -> None:
    whole = [*before, *(word.upper() for word in between), *after]
    found = list(paired(before + after, whole))
    assert len(found) == len(before) + len(after)


def test_long_sequences_are_paired_at_both_ends() -> None:
    left = ["a"] * 3_000 + ["b"] * 3_000
    right = ["a"] * 3_000 + ["c"] * 3_000 + ["b"] * 3_000
    assert len(list(paired(left, right))) == 6_000


def names(one: nn.Module, other: nn.Module, x: Tensor) -> dict[str, str]:
    a, b = (fwd.record(model.eval(), x, values="all") for model in (one, other))
    found = align(a, b)
    return {a.modules[i].path: b.modules[j].path for i, j in found.modules if i}


def test_a_list_that_lost_a_layer_is_shifted() -> None:
    one = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    other = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    assert names(one, other, torch.ones(3, 4)) == {"0": "0", "2": "1", "3": "2", "4": "3"}


def test_a_replaced_layer_keeps_its_place() -> None:
    one = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    other = nn.Sequential(nn.Linear(4, 4), nn.Identity(), nn.Linear(4, 4))
    assert names(one, other, torch.ones(3, 4)) == {"0": "0", "1": "1", "2": "2"}


def test_a_module_called_twice_is_paired_call_by_call() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.fc(x))

    a, b = (fwd.record(Twice(), torch.ones(2, 4), values="all") for _ in range(2))
    found = align(a, b)
    assert [(a.modules[i].index, b.modules[j].index) for i, j in found.modules] == [
        (0, 0), (0, 0), (1, 1),
    ]  # fmt: skip
    assert not found.only_a
    assert not found.only_b


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_rows_are_found_along_an_axis_that_was_flattened(
    rows: int, each: int, width: int, interleaved: bool
) -> None:
    whole = torch.randn(rows, each, width)
    laid = whole.transpose(0, 1) if interleaved else whole
    own = whole[:1].transpose(0, 1) if interleaved else whole[:1]
    flat, its = laid.reshape(rows * each, width), own.reshape(each, width)
    found = counterpart(flat, its, (rows, 1))
    assert found is not None
    assert torch.equal(found, its)


def test_shapes_that_do_not_correspond() -> None:
    assert counterpart(torch.ones(4, 3), torch.ones(1, 2), (4, 1)) is None
    assert counterpart(torch.ones(4, 3), torch.ones(4), (4, 1)) is None
    assert counterpart(torch.ones(6, 3), torch.ones(1, 3), (4, 1)) is None


def test_peak_bytes_of_a_chain_are_two_values_and_what_goes_in() -> None:
    class Chain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            for _ in range(5):
                x = x.exp()
            return x

    done = fwd.record(Chain(), torch.zeros(10), grad="off")
    assert peak_bytes(done) == 3 * 40


def test_a_port_keeps_other_names_another_nesting_and_weights_transposed() -> None:
    class Old(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.ModuleDict({"enter": nn.Linear(4, 6), "act": nn.ReLU()})
            self.leave = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.leave(self.body["act"](self.body["enter"](x)))

    class Transposed(nn.Module):
        def __init__(self, of: nn.Linear) -> None:
            super().__init__()
            self.kernel = nn.Parameter(of.weight.detach().t().contiguous())
            self.shift = nn.Parameter(of.bias.detach().clone())

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.shift, x, self.kernel)

    class New(nn.Module):
        def __init__(self, of: Old) -> None:
            super().__init__()
            self.first, self.second = Transposed(of.body["enter"]), Transposed(of.leave)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).relu())

    old = Old()
    found = names(old, New(old), torch.ones(3, 4))
    assert found == {"body.enter": "first", "leave": "second"}
    diff = fwd.diff(old, New(old), torch.randn(3, 4))
    assert diff.verdict in ("same", "rounding")
    assert not [call for call in diff.unpaired if call.kind != "view"], "relu pairs, module or not"


def test_layers_of_the_same_weights_pair_wherever_a_list_has_put_them() -> None:
    one = nn.ModuleList([nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)) for _ in range(4)])
    a = nn.Sequential(*one)
    b = nn.Sequential(one[0], one[2], one[3])
    found = names(a, b, torch.ones(3, 4))
    assert {found.get(str(i)) for i in (0, 2, 3)} == {"0", "1", "2"}
    assert "1" not in found
    assert "1.0" not in found, "though its weights are those of every other fresh LayerNorm"


def test_names_that_both_have_outweigh_weights() -> None:
    one = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    other = nn.Sequential(one[1], one[0])
    assert names(one, other, torch.ones(3, 4)) == {"0": "0", "1": "1"}, "they were exchanged"


def test_records_without_modules_pair_by_form(tmp_path: Path) -> None:
    one = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    other = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    for name, model in (("a", one), ("b", other)):
        fwd.record(model, torch.ones(3, 4), values="all").save(tmp_path / name)
    a, b = (fwd.Record.load(tmp_path / name) for name in "ab")
    assert [(a.modules[i].path, b.modules[j].path) for i, j in align(a, b).modules] == [
        ("", ""), ("0", "0"), ("2", "1"),
    ]  # fmt: skip
