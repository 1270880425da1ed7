"""Fill: windows and shards are a function of the rows in their order, not of their blocks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from forwardpass.batching.windows import SHARD, WINDOW, Capacity, Fill

Row = tuple[int, int, float]
rows = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 50), st.floats(0, 2)), min_size=1, max_size=80
)


def ends(fill: Fill, table: list[Row], cuts: list[int]) -> list[tuple[int, bool]]:
    """Where windows end, and shards, when the rows come in blocks cut at `cuts`."""
    found: list[tuple[int, bool]] = []
    bounds = [0, *sorted({cut % (len(table) + 1) for cut in cuts}), len(table)]
    for start, stop in pairwise(bounds):
        block = np.array(table[start:stop], dtype=np.float64).reshape(-1, 3)
        encoded, output = block[:, 0].astype(np.int64), block[:, 1].astype(np.int64)
        found += [(start + b.stop, b.shard) for b in fill.feed(encoded, output, block[:, 2])]
    return found


def by_hand(
    table: list[Row], window: Capacity, shard: Capacity, shard_rows: int | None
) -> list[tuple[int, bool]]:
    found: list[tuple[int, bool]] = []
    w, s, shards = [0, 0, 0], [0, 0, 0], 0
    for index, (encoded, output, seconds) in enumerate(table):
        span = round(seconds * 1e9)
        w = [w[0] + 1, w[1] + encoded, w[2] + span]
        s = [s[0] + 1, s[1] + output, s[2] + span]
        full = w[0] >= window.rows or w[1] >= window.bytes or w[2] >= window.seconds * 1e9
        if full or s[0] == shard_rows:
            seconds = round(shard.seconds * 1.01**shards * 1e9)
            reached = s[0] >= shard.rows or s[1] >= shard.bytes or s[2] >= seconds
            closes = reached if shard_rows is None else s[0] == shard_rows
            found.append((index + 1, closes))
            shards += closes
            w, s = [0, 0, 0], [0, 0, 0] if closes else s
    return found


@given(rows, st.lists(st.integers(0, 80), max_size=12), st.sampled_from((None, 1, 7, 20)))
def test_any_blocking_of_the_same_rows_gives_the_same_windows_and_shards(
    table: list[Row], cuts: list[int], shard_rows: int | None
) -> None:
    window, shard = Capacity(5, 100, 4.0), Capacity(12, 200, 9.0)
    found = ends(Fill(window, shard, shard_rows=shard_rows), table, cuts)
    assert found == ends(Fill(window, shard, shard_rows=shard_rows), table, [])
    assert found == by_hand(table, window, shard, shard_rows)


@given(rows, st.lists(st.integers(0, 80), max_size=12), st.integers(1, 9), st.integers(0, 6))
def test_a_window_ends_where_a_batch_does_that_holds_the_row_which_reaches_a_limit(
    table: list[Row], cuts: list[int], batch_rows: int, early: int
) -> None:
    def filled() -> Fill:
        return Fill(Capacity(12, 100, 4.0), least=early, early=early, batch_rows=batch_rows)

    found = [stop for stop, _ in ends(filled(), table, cuts)]
    assert found == [stop for stop, _ in ends(filled(), table, [])]
    for before, stop in pairwise([0, *found]):
        count = stop - before
        least = Fill(Capacity(12, 100, 4.0), least=0 if before else early)
        plain = next(end for end, _ in ends(least, table[before:stop], []))
        if plain >= batch_rows:
            assert (count - (0 if before else early)) % batch_rows == 0
            assert plain <= count < plain + batch_rows
        else:
            assert count == plain


def test_the_row_that_reaches_a_limit_is_the_last() -> None:
    window = Capacity(100, 64, 10.0)
    table: list[Row] = [(40, 0, 0.0), (30, 0, 0.0), (1, 0, 6.0), (1, 0, 6.0), (999, 0, 0.0)]
    assert [stop for stop, _ in ends(Fill(window), table, [])] == [2, 4, 5]


def test_an_explicit_shard_ends_exactly_there_and_cuts_the_window() -> None:
    table: list[Row] = [(1, 1, 0.0)] * 25
    found = ends(Fill(Capacity(rows=8), shard_rows=10), table, [])
    assert found == [(8, False), (10, True), (18, False), (20, True)]


def test_a_run_of_any_length_has_few_shards_and_a_lost_one_is_little() -> None:
    table: list[Row] = [(1, 1, 5.0)] * 40_000
    found = [stop for stop, shard in ends(Fill(), table, []) if shard]
    assert len(found) < 600
    for before, after in pairwise(found):
        assert after - before <= 0.02 * before + 12  # whole windows, of 30 s each
    gone_on = Fill(shards=100)
    rest = [stop for stop, shard in ends(gone_on, table[found[99] :], []) if shard]
    assert [found[99] + stop for stop in rest] == found[100:]


def test_the_defaults_are_those_of_the_design() -> None:
    assert (WINDOW.rows, WINDOW.bytes, WINDOW.seconds) == (8_192, 64 * 2**20, 30.0)
    assert (SHARD.rows, SHARD.bytes, SHARD.seconds) == (65_536, 128 * 2**20, 10.0)
    table: list[Row] = [(1, 1, 0.0)] * 70_000
    found = ends(Fill(), table, [33_000])
    assert [stop for stop, shard in found if shard] == [65_536]
    assert [stop for stop, _ in found] == list(range(8_192, 70_000, 8_192))
