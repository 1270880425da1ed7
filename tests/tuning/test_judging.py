"""What rows prove of the lines of a budget."""

from __future__ import annotations

import numpy as np
import pytest

from forwardpass.errors import UsageError
from forwardpass.nouns.budgets import budget
from forwardpass.tuning.judging import judge, require_kept_by_baseline

VECTORS = np.random.default_rng(0).normal(size=(700, 16)).astype(np.float32)


def test_what_equals_the_baseline_is_kept_where_the_rows_suffice() -> None:
    lines = ["cosine.mean >= 0.995", "flips <= 0.5%", "overlap10 >= 99%", "cosine.min >= 1"]
    found = judge(budget(lines), {"x": VECTORS}, {"x": VECTORS})
    assert [one.holds for one in found] == ["kept"] * 4
    assert [one.keep for one in found] == lines


def test_no_flip_of_n_proves_about_three_of_n() -> None:
    (one,) = judge(budget("flips <= 0.5%"), {"x": VECTORS[:300]}, {"x": VECTORS[:300]})
    assert one.value == 0
    assert one.bound == pytest.approx(3 / 300, rel=0.01)
    assert (one.holds, one.needed) == ("unproved", 600)
    assert "about 600 rows would prove it" in one.why


def test_a_baseline_that_breaks_the_budget_itself_is_refused() -> None:
    def score(predictions: object, labels: object) -> float:
        return 0.5

    with pytest.raises(UsageError, match=r"the baseline itself is at 0\.5 over 700 rows"):
        require_kept_by_baseline(budget((score, ">= 90%")), {"x": VECTORS})
