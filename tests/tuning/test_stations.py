"""Stations: the rows of a turn are such as batches of a long run are made of."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from forwardpass.nouns.signatures import Signature
from forwardpass.tensors.blocks import Block
from forwardpass.tuning.stations import neighbours

TEXTS = Signature.parse(("ids: i64[batch seq]",), ("y: f32[batch 4]",))


def texts(lengths: list[int]) -> Block:
    sizes = np.array(lengths, np.int64)[:, None]
    ids = [np.zeros(length, np.int64) for length in lengths]
    return Block(TEXTS, {"ids": ids}, sizes, sizes)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=300), st.integers(1, 320))
def test_rows_of_a_turn_are_runs_of_neighbours_in_order_of_length(
    lengths: list[int], rows: int
) -> None:
    taken = neighbours(texts(lengths), rows)
    assert len(set(taken.tolist())) == len(taken) == min(rows, len(lengths))
    mine = np.array(lengths)[taken]
    assert (np.diff(mine) >= 0).all()
    places = np.searchsorted(np.sort(lengths), mine)
    runs = max(1, len(taken) // 16)
    for run, span in zip(
        np.array_split(places, runs), np.array_split(np.arange(len(lengths)), runs), strict=True
    ):
        assert run.min() >= np.searchsorted(np.sort(lengths), np.sort(lengths)[span[0]])
        assert run.max() <= span[-1]


def test_a_turn_has_short_rows_and_long_ones_and_pads_little() -> None:
    lengths = np.random.default_rng(0).lognormal(4, 1, 4_000).astype(int).clip(1, 512)
    mine = lengths[neighbours(texts(lengths.tolist()), 64)]
    runs = np.array_split(mine, 4)
    assert sum(int(run.max()) * len(run) for run in runs) < 1.02 * mine.sum()
    assert runs[0].max() < np.median(lengths) < runs[-1].min()


def test_rows_of_one_shape_come_from_all_over_the_part() -> None:
    block = Block(
        Signature.parse(("x: f32[batch 2]",), ("y: f32[batch 2]",)),
        {"x": np.zeros((640, 2), np.float32)},
        np.zeros((640, 0), np.int64),
        np.zeros((640, 0), np.int64),
    )
    taken = neighbours(block, 64)
    assert taken[0] < 160 < 480 < taken[-1]
