"""Tiles hold the numbers of the tensor, and say what is true of all of it."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forwardpass.errors import UsageError
from forwardpass.exploring.tiles import PLANES, SIDE, Tile, fitted, window


def numbers(tile: Tile) -> torch.Tensor:
    head = tile.head
    flat = np.frombuffer(tile.numbers, "<f4").copy()
    return torch.from_numpy(flat).reshape(len(head.shown), head.height, head.width)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 6), max_size=4))
def test_a_small_tensor_is_there_number_by_number(shape: list[int]) -> None:
    tensor = torch.randn(shape)
    tile = fitted(tensor, "f32")
    assert torch.equal(numbers(tile).flatten(), tensor.flatten())
    assert tile.head.planes * tile.head.rows * tile.head.columns == prod(shape)
    assert (tile.head.min, tile.head.max) == (tensor.min().item(), tensor.max().item())


def test_a_window_is_that_part_of_one_plane() -> None:
    tensor = torch.randn(2, 3, 40, 50)
    part = window(tensor, "f32", plane=4, top=5, left=6, height=7, width=8)
    assert torch.equal(numbers(part)[0], tensor[1, 1, 5:12, 6:14])
    thinned = window(tensor, "f32", plane=4, down=4, across=5, height=10, width=10)
    blocks = tensor[1, 1].reshape(10, 4, 10, 5).transpose(1, 2).flatten(2)
    assert torch.equal(numbers(thinned)[0].abs(), blocks.abs().amax(-1))


def test_a_large_tensor_keeps_what_is_farthest_from_zero() -> None:
    tensor = torch.randn(3, 700, 900)
    tensor[2, 411, 777] = -50.0
    tile = fitted(tensor, "f32")
    assert len(tile.numbers) <= 4 * SIDE * SIDE
    assert numbers(tile)[2].min().item() == -50.0
    assert tile.head.min == -50.0


def test_of_many_planes_the_strongest_are_shown_and_all_can_be_paged() -> None:
    tensor = torch.rand(1, 384, 7, 7) * 0.1
    tensor[0, 100:164] += 1.0
    strongest = fitted(tensor, "f32")
    assert strongest.head.strongest
    assert strongest.head.shown == tuple(range(100, 164))
    paged = [n for at in range(0, 384, PLANES) for n in fitted(tensor, "f32", at).head.shown]
    assert paged == list(range(384))


def test_nan_and_inf_are_counted_and_seen_where_cells_stand_for_several() -> None:
    tensor = torch.zeros(1, 4096)
    tensor[0, 8], tensor[0, 9], tensor[0, 100] = torch.inf, torch.nan, -torch.inf
    tile = fitted(tensor, "f32")
    assert (tile.head.nan, tile.head.inf) == (1, 2)
    assert tile.head.across == 8
    shown = numbers(tile)[0, 0]
    assert shown[1].isnan()
    assert shown[100 // 8] == -torch.inf


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([True, False]),
        torch.tensor(3.5),
        torch.tensor([2**40, 1]),
        torch.randn(3, dtype=torch.float64),
        torch.randn(3).to(torch.bfloat16),
        torch.zeros(0, 5),
        torch.full((2,), torch.nan),
    ],
    ids=["bool", "0-d", "i64", "f64", "bf16", "empty", "nan"],
)
def test_any_kind_of_number_has_a_tile(tensor: torch.Tensor) -> None:
    tile = fitted(tensor, "any")
    assert torch.equal(
        numbers(tile).flatten().nan_to_num(7.0), tensor.to(torch.float32).flatten().nan_to_num(7.0)
    )


def test_complex_numbers_are_shown_by_their_magnitudes() -> None:
    tensor = torch.tensor([3 + 4j, 0j])
    tile = fitted(tensor, "c64")
    assert tile.head.magnitudes
    assert numbers(tile).flatten().tolist() == [5.0, 0.0]


@pytest.mark.parametrize(
    "place", [{"plane": 1}, {"top": 3}, {"left": 9}, {"down": 0}, {"height": SIDE + 1}]
)
def test_what_lies_outside_is_refused(place: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        window(torch.zeros(3, 4), "f32", **place)
    with pytest.raises(UsageError, match="planes"):
        fitted(torch.zeros(3, 4), "f32", first=1)
