"""alike and exact: contiguous slices where all rows have one shape."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forwardpass.batching.slicing import alike, exact
from forwardpass.nouns.costs import CostPoint, CostTable

COSTS = CostTable(
    tuple(
        CostPoint(r, {}, 1, s) for r, s in ((1, 1.0), (4, 1.3), (16, 2.0), (64, 6.0), (256, 40.0))
    )
)


@given(st.integers(0, 2_000), st.sampled_from((None, 1, 10, 100)))
def test_slices_cover_all_rows_in_order_and_all_but_the_last_are_alike(
    rows: int, ceiling_cells: int | None
) -> None:
    slices = alike(rows, 1, COSTS, ceiling_cells=ceiling_cells)
    assert [i for s in slices for i in range(rows)[s]] == list(range(rows))
    counts = [s.stop - s.start for s in slices]
    assert len(set(counts[:-1])) <= 1
    assert max(counts, default=0) <= min(ceiling_cells or 256, 256)


def test_the_count_is_the_best_per_row_and_a_remainder_goes_where_it_costs_less() -> None:
    def counts(rows: int) -> list[int]:
        return [s.stop - s.start for s in alike(rows, 1, COSTS)]

    assert {s.stop - s.start for s in alike(6_400, 1, COSTS)} == {64}
    assert counts(130) == [64, 66]  # 7.1 s together, 7.1 s and a second apart
    assert counts(64 + 48) == [64, 48]
    assert counts(5) == [5]


def test_a_chosen_count_is_kept_exactly() -> None:
    assert exact(10, 4) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert exact(0, 4) == []
