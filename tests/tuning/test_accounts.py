"""What is told of a plan agrees with its ratio to the baseline."""

from __future__ import annotations

import pytest
import tunings
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from profiles import near

from forwardpass.tuning.accounts import beside, pays_after_rows


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_plan_that_is_faster_by_its_ratio_has_more_rows_a_second(
    ratio: float, moment: float
) -> None:
    """Whatever its own seconds were: of another clock, or of a busier moment."""
    alone = tunings.trial("@ openvino", ratio, 0.999, rows_per_second=near(198 * moment))
    batch = {"seconds_per_batch": near(moment)}
    told = beside(replace(alone, **batch), replace(tunings.BASELINE, seconds_per_batch=near(8.0)))
    assert told.rows_per_second is not None
    assert told.seconds_per_batch is not None
    assert told.rows_per_second.median == pytest.approx(198 * ratio)
    assert told.rows_per_second.low <= told.rows_per_second.median <= told.rows_per_second.high
    assert told.seconds_per_batch.median == pytest.approx(8 / ratio)
    assert told.seconds_per_batch.low <= told.seconds_per_batch.median
    assert (pays_after_rows(told, tunings.BASELINE) is not None) == (ratio > 1 + 1e-9)


def test_a_plan_that_was_not_timed_stays_as_it_is() -> None:
    failed = tunings.trial("@ aot", None, None, fate="failed")
    assert beside(failed, tunings.BASELINE) == failed
