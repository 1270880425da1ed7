"""Headlines: no more is said than the intervals allow."""

from __future__ import annotations

from typing import Any

import pytest

from forwardpass.nouns.costs import CostTable
from forwardpass.nouns.machines import Limits
from forwardpass.nouns.profiles import Advice, CallCost, Curve, Estimate, Parts, Passed
from forwardpass.profiling.curves import Sweep
from forwardpass.profiling.headlines import headline, verdict
from tests.profiles import near, point

LIMITS = Limits({"f32": 1e9, "bf16": 4e9}, 1e9, 1e-6)
COSTS = CostTable(())
EMPTY = Sweep((), (), COSTS, 0.02)


def share(middle: float, aside: float = 0.01) -> Estimate:
    return Estimate(middle, middle - aside, middle + aside)


def product(
    seconds: float, macs: int | None, bound: Any = "compute", limit: float = 0.0
) -> CallCost:
    return CallCost(0, "aten.mm.default", "", "f32", near(seconds), macs, 0, limit, bound)


def told(shares: dict[Any, Estimate], rows: int = 1, **more: Any) -> str:
    fields: dict[str, Any] = {
        "whole": Estimate(1.0, 0.99, 1.01), "noise": 0.01, "calls": (product(0.1, 0, "overhead"),),
    }  # fmt: skip
    return headline([Parts(rows, {}, shares=shares, **{**fields, **more})], EMPTY, LIMITS)


def test_overhead_is_said_with_its_share() -> None:
    said = told({"overhead": share(0.61), "memory": share(0.3), "compute": share(0.09)})
    assert said == "at batch 1, 61% of the time is operator overhead"


def test_what_goes_by_outside_of_operators_is_not_called_their_overhead() -> None:
    """A model that sleeps, or that calls none."""
    calls = (product(0.05, 0, "overhead"),)
    shares: dict[Any, Estimate] = {"overhead": share(0.97), "memory": share(0.03)}
    said = told(shares, calls=calls, unattributed=Estimate(0.92, 0.91, 0.93))
    assert said.startswith("at batch 1, 92% of the time goes by outside of operators")
    assert "operator overhead" in told(shares, calls=calls, unattributed=near(0.2))
    assert "100% of the time goes by outside" in told({"overhead": share(1.0, 0.0)}, calls=())


def test_a_product_reaches_a_share_of_the_limit_of_its_dtype() -> None:
    calls = (product(0.95, 420_000_000, limit=0.84),)
    said = told({"compute": share(0.95), "overhead": share(0.05)}, rows=32, calls=calls)
    assert said.startswith("at batch 32, it reaches 84% of the f32 limit")


def test_a_share_that_is_not_sure_is_a_range() -> None:
    said = told({"overhead": share(0.6, 0.1), "memory": share(0.3)})
    assert "50% to 70% of the time is operator overhead" in said


def test_what_overlaps_is_too_close_to_call() -> None:
    said = told({"overhead": share(0.45, 0.1), "memory": share(0.4, 0.1), "compute": share(0.1)})
    assert "too close to call" in said
    assert "multiplying" not in said


def test_memory_says_how_near_to_its_limit_it_comes() -> None:
    calls = (product(0.9, 0, "memory", limit=0.36),)
    said = told({"memory": share(0.9), "overhead": share(0.1)}, calls=calls)
    assert said.startswith("at batch 1, 90% of the time is spent in calls bound by memory")
    assert said.endswith("which reach 40% of that limit")


def test_where_a_product_has_no_formula_no_limit_of_the_pass_is_said() -> None:
    calls = (product(0.8, 400_000_000, limit=0.8), product(0.1, None, "unknown"))
    said = told({"compute": share(0.8), "unknown": share(0.2)}, calls=calls)
    assert "it reaches" not in said


def test_work_that_nobody_saw_is_not_called_overhead() -> None:
    said = told({"overhead": share(0.9), "memory": share(0.1)}, why="+ reads what was not seen")
    assert "cannot be told" in said
    assert "overhead" not in said


def test_parts_that_are_missing_say_why() -> None:
    assert told({}, why="a later pass went another way") == (
        "at batch 1, what bounds it cannot be told: a later pass went another way"
    )


def swept(*rates: float, best: int) -> Sweep:
    rows = [1, 8, 64][: len(rates)]
    points = tuple(point(n, n / rate) for n, rate in zip(rows, rates, strict=True))
    return Sweep((Curve("batch", points, ""),), (Advice("throughput", best, ""),), COSTS, 0.02)


def test_an_engine_of_its_own_is_told_end_to_end() -> None:
    said = headline([], swept(100.0, 400.0, best=8), LIMITS)
    assert said == "timed end to end only: 400 rows/s at batch 8, 4.0 × as many as at batch 1"
    same = headline([], swept(100.0, 100.1, best=8), LIMITS)
    assert "no more than one at a time as far as can be told" in same


def passed(name: str, *rates: float, best: int = 8) -> Passed:
    one = swept(*rates, best=best)
    return Passed(name, "cpu", "f32", "", one.curves, one.advice, (), None, None, COSTS)


def test_the_fastest_is_the_fastest_at_its_best_batch() -> None:
    said = verdict([passed("a.py", 100.0, 200.0), passed("b.py", 150.0, 150.0, best=1)], 0.02)
    assert said == "a.py is the fastest: 200 rows/s at batch 8, 1.33 × b.py at batch 1"


def test_what_may_be_faster_in_batches_that_were_not_tried_is_said() -> None:
    said = verdict([passed("a.py", 100.0, 200.0), passed("b.py", 50.0, best=1)], 0.02)
    assert said.endswith("× b.py at batch 1; larger batches of b.py were not tried")


@pytest.mark.parametrize(("other", "noise"), [(199.0, 0.0), (190.0, 0.1)])
def test_what_lies_within_the_intervals_or_the_noise_is_too_close(
    other: float, noise: float
) -> None:
    said = verdict([passed("a.py", 50.0, other), passed("b.py", 50.0, 200.0)], noise)
    assert said == "too close to call: b.py and a.py"


def test_what_is_clearly_slower_is_no_candidate() -> None:
    three = [passed("a.py", 9.0, 199.0), passed("b.py", 9.0, 200.0), passed("c.py", 9.0, 20.0)]
    assert verdict(three, 0.0) == "too close to call: b.py and a.py"


def test_one_alone_has_no_verdict() -> None:
    assert verdict([passed("a.py", 1.0, 2.0)], 0.0) == ""
