"""pack and fixed: every row once, ceilings kept, little padding, never dearer than by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwardpass.batching.packing import Cells, Indices, cells_of, fixed, pack
from forwardpass.nouns.costs import CostPoint, CostTable
from forwardpass.nouns.signatures import Signature


def measured(
    cells: tuple[int, ...] = (8, 64, 512), rows: int = 64, start: float = 0.004
) -> CostTable:
    """A cost with a fixed part and a knee, beyond which more cells gain nothing."""
    counts = [1 << power for power in range(rows.bit_length())]
    return CostTable(
        tuple(
            CostPoint(r, {"tokens": c}, c, start + 1e-4 * r * c + 2e-8 * r * c * c)
            for c in cells
            for r in counts
        )
    )


def area(sizes: np.ndarray) -> np.ndarray:
    return np.maximum(sizes.prod(axis=-1), 1)


def padded(sizes: np.ndarray, batch: Indices, cells: Cells = area) -> int:
    return int(cells(sizes[batch].max(axis=0)))


def predicted(sizes: np.ndarray, plan: list[Indices], costs: CostTable) -> float:
    return sum(costs.seconds(len(batch), padded(sizes, batch)) for batch in plan)


def lengths(low: int = 1, high: int = 300, most: int = 120) -> st.SearchStrategy[np.ndarray]:
    return st.lists(st.integers(low, high), min_size=1, max_size=most).map(
        lambda values: np.array(values, dtype=np.int64)[:, None]
    )


pairs = st.lists(
    st.tuples(st.sampled_from((8, 16, 24)), st.integers(1, 20)), min_size=1, max_size=60
).map(lambda values: np.array(values, dtype=np.int64))
permissions = st.sampled_from(((True, True), (False, True), (True, False), (False, False)))


@given(pairs, permissions, st.sampled_from((None, 40, 400)))
def test_every_row_is_in_one_batch_and_the_ceilings_are_kept(
    sizes: np.ndarray, paddable: tuple[bool, ...], ceiling_cells: int | None
) -> None:
    costs = measured(cells=(32, 256), rows=16)
    plan = pack(sizes, paddable, area, costs, ceiling_cells=ceiling_cells)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(sizes)))
    for batch in plan:
        cells = padded(sizes, batch)
        assert len(batch) == 1 or len(batch) <= costs.ceiling(cells)
        assert len(batch) == 1 or ceiling_cells is None or len(batch) * cells <= ceiling_cells
        for axis, free in enumerate(paddable):
            assert free or len(set(sizes[batch, axis].tolist())) == 1


@given(pairs, permissions, st.integers(1, 9), st.sampled_from((None, 40, 400)))
def test_fixed_batches_keep_every_row_and_the_ceiling_too(
    sizes: np.ndarray, paddable: tuple[bool, ...], rows: int, ceiling_cells: int | None
) -> None:
    plan = fixed(sizes, paddable, area, rows, ceiling_cells=ceiling_cells)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(sizes)))
    for batch in plan:
        assert len(batch) <= rows
        cells = padded(sizes, batch)
        assert len(batch) == 1 or ceiling_cells is None or len(batch) * cells <= ceiling_cells
        for axis, free in enumerate(paddable):
            assert free or len(set(sizes[batch, axis].tolist())) == 1


@given(lengths(), st.sampled_from((1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32, 64)))
def test_packing_never_costs_more_than_batches_of_a_fixed_count(
    sizes: np.ndarray, rows: int
) -> None:
    costs = measured(cells=(8, 64, 512), rows=4096)
    by_hand = fixed(sizes, (True,), area, rows)
    packed = pack(sizes, (True,), area, costs)
    assert predicted(sizes, packed, costs) <= predicted(sizes, by_hand, costs) * (1 + 1e-9)


@given(lengths(high=12), st.sampled_from((1, 3, 8, 16)))
def test_without_padding_neither_does_it(sizes: np.ndarray, rows: int) -> None:
    costs = measured(cells=(8, 64), rows=4096)
    by_hand = fixed(sizes, (False,), area, rows)
    packed = pack(sizes, (False,), area, costs)
    assert predicted(sizes, packed, costs) <= predicted(sizes, by_hand, costs) * (1 + 1e-9)
    assert all(len(set(sizes[batch, 0].tolist())) == 1 for batch in packed)


@given(lengths(high=40, most=14))
def test_the_cuts_are_the_cheapest_of_all_cuts_of_the_sorted_rows(sizes: np.ndarray) -> None:
    costs = measured(cells=(8, 64), rows=64)
    ordered = np.sort(sizes[:, 0])
    best = [0.0]
    for stop in range(1, len(ordered) + 1):
        cells = int(ordered[stop - 1])
        best.append(
            min(
                best[start] + costs.seconds(stop - start, cells)
                for start in range(stop)
                if stop - start in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14) or stop == len(ordered)
            )
        )
    assert predicted(sizes, pack(sizes, (True,), area, costs), costs) == pytest.approx(best[-1])


@given(lengths(), st.randoms(use_true_random=False))
def test_the_same_rows_make_the_same_batches_and_ties_keep_their_order(
    sizes: np.ndarray, random: object
) -> None:
    costs = measured()
    one, other = (pack(sizes.copy(), (True,), area, costs) for _ in range(2))
    assert [batch.tolist() for batch in one] == [batch.tolist() for batch in other]
    order = np.concatenate(one)
    for size in np.unique(sizes):
        same = order[sizes[order, 0] == size]
        assert (np.diff(same) > 0).all()


def test_little_is_padding_on_lengths_as_texts_have_them() -> None:
    generator = np.random.default_rng(0)
    sizes = np.clip(generator.lognormal(4.0, 0.7, 1_024), 3, 256).astype(np.int64)[:, None]
    costs = measured(cells=(16, 64, 256), rows=64)
    plan = pack(sizes, (True,), area, costs)
    computed = sum(len(batch) * padded(sizes, batch) for batch in plan)
    assert 1 - sizes.sum() / computed < 0.05
    in_order = [np.arange(start, start + 32) for start in range(0, 1_024, 32)]
    assert predicted(sizes, plan, costs) < 0.5 * predicted(sizes, in_order, costs)


def test_two_paddable_axes_do_not_put_tall_next_to_wide() -> None:
    sizes = np.array([(100, 10), (10, 100)] * 20, dtype=np.int64)
    costs = measured(cells=(64, 1_024, 16_384), rows=64, start=0.01)
    plan = pack(sizes, (True, True), area, costs)
    assert sum(len(batch) * padded(sizes, batch) for batch in plan) == 40 * 1_000


def test_a_row_beyond_every_ceiling_goes_alone() -> None:
    sizes = np.array([[4], [10_000], [4]], dtype=np.int64)
    plan = pack(sizes, (True,), area, measured(), ceiling_cells=100)
    assert [batch.tolist() for batch in plan] == [[0, 2], [1]]


def test_rows_without_variable_axes_keep_their_order() -> None:
    sizes = np.zeros((10, 0), dtype=np.int64)
    costs = CostTable(tuple(CostPoint(r, {}, 1, 1.0 + r / 10) for r in (1, 2, 4)))
    cells = cells_of(Signature.parse("features: f32[batch 16]"))
    assert np.concatenate(pack(sizes, (), cells, costs)).tolist() == list(range(10))
    assert [len(batch) for batch in fixed(sizes, (), cells, 4)] == [4, 4, 2]


def test_no_rows_make_no_batches() -> None:
    none = np.zeros((0, 1), dtype=np.int64)
    assert pack(none, (True,), area, measured()) == []
    assert fixed(none, (True,), area, 4) == []


def test_many_groups_and_a_full_window_are_packed() -> None:
    generator = np.random.default_rng(1)
    sizes = generator.integers(1, 4_000, size=(8_192, 1))
    plan = pack(sizes, (False,), area, measured(cells=(64, 4_096)))
    assert sum(len(batch) for batch in plan) == 8_192


@pytest.mark.parametrize(
    "inputs",
    [
        "ids: i64[batch tokens=1..512] pad 0\nmask: i64[batch tokens] = valid(tokens)",
        "image: f32[batch 3 height width]\nids: i64[batch tokens]",
        "pairs: f32[batch tokens tokens]",
        "features: f32[batch 16]",
    ],
)
def test_cells_of_many_rows_are_those_of_the_signature(inputs: str) -> None:
    signature = Signature.parse(inputs)
    names = list(signature.variable)
    sizes = np.random.default_rng(0).integers(1, 50, size=(20, len(names)))
    expected = [signature.cells(dict(zip(names, row.tolist(), strict=True))) for row in sizes]
    assert cells_of(signature)(sizes).tolist() == expected
