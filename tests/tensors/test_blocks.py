"""Padding along named axes, derived inputs, and cutting the padding off again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forwardpass.executing.encoding import checked
from forwardpass.nouns.signatures import Output, Signature
from forwardpass.tensors.blocks import Block, as_values, concatenated, cut
from forwardpass.tensors.distances import relative_distance

TOKENS = [
    "ids: i64[batch tokens=1..8] pad 9",
    "mask: i64[batch tokens] = valid(tokens)",
    "lengths: i64[batch] = length(tokens)",
    "shares: f32[batch 1] = share(tokens)",
    "places: i64[batch tokens] = positions(tokens)",
]


def block(inputs: list[str] | str, **arrays: object) -> Block:
    count = len(next(iter(arrays.values())))  # type: ignore[arg-type]
    return checked(Signature.parse(inputs), arrays, count)[0]


def test_right_padding_and_derived_inputs() -> None:
    made = block(TOKENS, ids=[[1, 2, 3], [4]]).take(np.array([0, 1])).collate([3])
    assert made["ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert made["mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert made["lengths"].tolist() == [3, 1]
    assert made["shares"].tolist() == [[1.0], [pytest.approx(1 / 3)]]
    assert made["places"].tolist() == [[0, 1, 2], [0, 0, 0]]


def test_left_padding_and_derived_inputs() -> None:
    left = [TOKENS[0] + " left", *TOKENS[1:]]
    made = block(left, ids=[[1, 2, 3], [4, 5]]).take(np.array([1, 0])).collate([4])
    assert made["ids"].tolist() == [[9, 9, 4, 5], [9, 1, 2, 3]]
    assert made["mask"].tolist() == [[0, 0, 1, 1], [0, 1, 1, 1]]
    assert made["places"].tolist() == [[0, 0, 0, 1], [0, 0, 1, 2]]


@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), st.integers(0, 5))
def test_a_share_of_what_the_batch_is_filled_up_to_is_the_length(
    sizes: list[int], more: int
) -> None:
    made = block(TOKENS, ids=[[7] * size for size in sizes]).collate([max(sizes) + more])
    cells = made["ids"].shape[1]
    assert (made["shares"][:, 0] * cells).round().astype(int).tolist() == sizes
    assert made["shares"].dtype == np.float32


def test_a_mask_may_have_further_axes_and_another_dtype() -> None:
    inputs = ["ids: i64[batch tokens] pad 0", "mask: bool[batch 1 1 tokens] = valid(tokens)"]
    made = block(inputs, ids=[[1, 2], [3]]).take(np.array([0, 1])).collate([2])
    assert made["mask"].shape == (2, 1, 1, 2)
    assert made["mask"][:, 0, 0].tolist() == [[True, True], [True, False]]


def test_the_batch_axis_need_not_be_the_first() -> None:
    made = (
        block("h0: f32[2 batch 3]", h0=np.arange(24.0).reshape(4, 2, 3))
        .take(np.array([3, 1]))
        .collate([])
    )
    assert made["h0"].shape == (2, 2, 3)
    assert made["h0"][:, 0].tolist() == [[18, 19, 20], [21, 22, 23]]


def test_two_axes_are_padded_at_once_to_their_multiple() -> None:
    images = [np.ones((1, 3, 5), np.float32), np.ones((1, 4, 2), np.float32)]
    made = block("image: f32[batch 1 h=1..8%4 w=1..8%4] pad 0", image=images)
    assert made.lengths.tolist() == [[3, 5], [4, 2]]
    assert made.sizes.tolist() == [[4, 8], [4, 4]]
    batch = made.take(np.array([0, 1])).collate([4, 8])["image"]
    assert batch.shape == (2, 1, 4, 8)
    assert batch.sum((1, 2, 3)).tolist() == [15, 8]


def test_cutting_undoes_padding_on_either_side() -> None:
    output = Output.parse("frames: f32[batch (tokens-1)//2 4]")
    padded = torch.arange(40.0).reshape(2, 5, 4)
    rows = cut(padded, output.extents, [{"tokens": 11}, {"tokens": 4}], frozenset())
    assert [tuple(row.shape) for row in rows] == [(5, 4), (1, 4)]
    tokens = Output.parse("states: f32[batch tokens]")
    left = cut(torch.tensor([[0, 1, 2]]), tokens.extents, [{"tokens": 2}], frozenset({"tokens"}))
    assert left[0].tolist() == [1, 2]


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=8), min_size=1, max_size=9))
def test_whatever_is_padded_comes_back(rows: list[list[int]]) -> None:
    made = block(TOKENS, ids=rows)
    batch = made.collate(made.sizes.max(0).tolist())
    output = Output.parse("ids: i64[batch tokens]")
    lengths = [{"tokens": len(row)} for row in rows]
    back = cut(batch["ids"], output.extents, lengths, frozenset())
    assert [row.tolist() for row in back] == rows
    assert batch["mask"].sum(1).tolist() == [len(row) for row in rows]


def test_blocks_laid_together_keep_every_row() -> None:
    one, two = block(TOKENS, ids=[[1, 2], [3, 4]]), block(TOKENS, ids=[[5]])
    both = concatenated([one, two])
    assert len(both) == 3
    assert both.take(np.array([2, 0])).collate([2])["ids"].tolist() == [[5, 9], [1, 2]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 3))}, r"input `x: f32\[batch 4\]`: expected a row of \[4\], got \[3\]"),
        ({"x": np.zeros((3, 4))}, "3 values for 2 rows"),
        ({"x": [["a"], ["b"]]}, "expected numbers"),
        ({}, "gave nothing for the input"),
        ({"x": np.zeros((2, 4), complex)}, "do not fit f32"),
    ],
)
def test_what_does_not_fit_is_said(arrays: dict[str, object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        checked(Signature.parse("x: f32[batch 4]"), arrays, 2)


def test_floats_for_an_integer_input_are_refused() -> None:
    with pytest.raises(TypeError, match="f64 values do not fit i64"):
        checked(Signature.parse("x: i64[batch 2]"), {"x": np.zeros((1, 2))}, 1)


def test_a_long_row_is_cut_only_where_padding_is_declared() -> None:
    made, cut_rows = checked(Signature.parse(TOKENS), {"ids": [list(range(20)), [1]]}, 2)
    assert made.lengths.tolist() == [[8], [1]]
    assert cut_rows == {0}
    with pytest.raises(ValueError, match=r"expected a row of \[tokens=1..8\], got \[20\]"):
        checked(Signature.parse("ids: i64[batch tokens=1..8]"), {"ids": [list(range(20))]}, 1)


def test_values_are_taken_from_arrays_tensors_and_lists() -> None:
    readonly = np.arange(6.0).reshape(2, 3)
    readonly.flags.writeable = False
    for values in (readonly, readonly[:, ::-1], torch.zeros(2, 3), [[1, 2, 3], [4, 5, 6]]):
        taken = as_values(values)
        assert isinstance(taken, np.ndarray)
        assert taken.shape == (2, 3)
    assert isinstance(as_values([[1], [2, 3]]), list)
    assert as_values(np.array([1, 2], np.uint16)).tolist() == [1, 2]


def test_tensors_become_the_values_of_a_block_as_they_are() -> None:
    whole = torch.randn(3, 2, requires_grad=True)
    shared = block("features: f32[batch 2]", features=whole).values["features"]
    assert np.shares_memory(shared, whole.detach().numpy())
    mixed = [whole[0], whole[1].detach().numpy(), torch.nn.Parameter(whole[2])]
    for rows in (list(whole), mixed):
        taken = as_values(rows)
        assert isinstance(taken, np.ndarray)
        assert np.array_equal(taken, whole.detach().numpy())
    half = as_values([row.bfloat16() for row in whole])
    assert isinstance(half, np.ndarray)
    assert np.array_equal(half, whole.bfloat16().float().detach().numpy())


def test_distance() -> None:
    nan = float("nan")
    assert relative_distance(torch.tensor([1.0, nan]), torch.tensor([1.0, nan])) == 0
    assert relative_distance(torch.tensor([1.0, 2.0]), torch.tensor([1.0, nan])) == float("inf")
    assert relative_distance(torch.tensor([2.0, 1.0]), torch.tensor([2.0, 2.0])) == 0.5
    assert relative_distance(torch.tensor([1]), torch.tensor([2])) == 1
    assert relative_distance(torch.tensor([1e-40]), torch.tensor([0.0])) == 0
    assert relative_distance(torch.tensor([3e-38]), torch.tensor([1e-38])) > 1
    double = torch.tensor([1e-40, 3e-40], dtype=torch.float64)
    assert relative_distance(double[:1], double[1:]) > 0.5
    assert relative_distance(torch.zeros(0), torch.zeros(0)) == 0
    assert relative_distance(torch.tensor([float("inf")]), torch.tensor([-float("inf")])) == float(
        "inf"
    )
