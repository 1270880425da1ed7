"""Sizes are padded further where that costs less than planning more shapes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from forwardpass.batching.policies import Packed, Policy
from forwardpass.batching.rounding import rounded
from forwardpass.nouns.costs import CostPoint, CostTable

POINTS = tuple(
    CostPoint(rows, {}, cells, 0.001 + 1e-5 * rows * cells)
    for cells in (8, 64, 256) for rows in (1, 4, 16, 64)
)  # fmt: skip
lengths = st.lists(st.integers(1, 600), min_size=1, max_size=120)


def planned(sizes: list[int], shape_seconds: float) -> Packed:
    costs = CostTable(POINTS, shape_seconds)
    policy = Policy((True,), lambda some: some[..., 0], costs, None)
    return policy.plan(np.array(sizes, np.int64)[:, None], None)


def shapes(plan: Packed) -> list[tuple[int, int]]:
    return [(len(batch), int(size)) for batch, (size,) in zip(*plan, strict=True)]


@given(lengths, lengths, st.sampled_from((1, 2, 4, 32)))
def test_sizes_are_rounded_up_to_some_that_are_there_and_an_octave_has_few(
    tall: list[int], wide: list[int], per_octave: int
) -> None:
    count = min(len(tall), len(wide))
    sizes = np.array([tall[:count], wide[:count]], np.int64).T
    found = rounded(sizes, (True, False), per_octave)
    assert (found[:, 1] == sizes[:, 1]).all()
    assert (found[:, 0] >= sizes[:, 0]).all()
    assert set(found[:, 0]) <= set(sizes[:, 0])
    assert (found[:, 0] <= sizes[:, 0] * (1 + 1 / per_octave)).all()
    for power in range(10):
        octave = {size for size in found[:, 0].tolist() if 2**power < size <= 2 ** (power + 1)}
        assert len(octave) <= per_octave


@given(lengths, st.sampled_from((0.0, 1e-4, 0.01, 1.0)))
def test_no_plan_costs_more_by_the_table_than_that_of_the_least_padding(
    sizes: list[int], price: float
) -> None:
    def cost(plan: Packed) -> float:
        table = CostTable(POINTS)
        return sum(table.seconds(*one) for one in shapes(plan)) + price * len({*shapes(plan)})

    plan, least = planned(sizes, price), planned(sizes, 0.0)
    assert sorted(np.concatenate(plan.batches).tolist()) == [*range(len(sizes))]
    assert cost(plan) <= cost(least) + 1e-9
    for batch, (size,) in zip(*plan, strict=True):
        own = max(sizes[row] for row in batch)
        assert own <= size <= max(sizes)
        assert len(batch) > 1 or size == own  # alone it shares its shape with few


def test_shapes_come_again_where_each_has_a_price_and_only_there() -> None:
    sizes = np.random.default_rng(0).integers(1, 257, 2_000).tolist()
    free, dear = planned(sizes, 0.0), planned(sizes, 0.05)
    assert all(size == max(sizes[r] for r in batch) for batch, (size,) in zip(*free, strict=True))
    assert len({*shapes(dear)}) < len({*shapes(free)}) / 2
    assert shapes(planned(sizes, 1e-7)) == shapes(free)
