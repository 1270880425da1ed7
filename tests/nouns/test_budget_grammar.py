"""The lines of a budget: read, printed back, and refused with what to write instead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwardpass.errors import GrammarError, UsageError
from forwardpass.nouns.budgets import Keep, budget

NUMBERS = st.floats(0, 1, allow_subnormal=False)


@pytest.mark.parametrize(
    "text",
    [
        "cosine.mean >= 0.995",
        "cosine >= 0.995",
        "flips <= 0.5%",
        "accuracy >= baseline - 0.5%",
        "accuracy >= baseline",
        "my metrics/score.py:f1 >= 0.9",
        "relative_error.p99 <= 1%",
        "kl.max <= 0.001",
        "score.py:loss <= baseline + 0.02",
        "score.py:loss >= -3.5",
    ],
)
def test_a_line_is_printed_as_it_was_written(text: str) -> None:
    assert str(Keep.parse(text)) == text


def test_percentages_are_hundredths_and_what_is_relative_is_added() -> None:
    assert Keep.parse("flips<=0.50%") == Keep("flips", "", "<=", 0.005, percent=True)
    assert Keep.parse("accuracy >= baseline-1%").limit == -0.01
    assert Keep.parse("accuracy >= baseline-1%").relative


@given(
    st.sampled_from(["cosine.p1 >=", "accuracy >=", "flips <=", "kl <=", "a/b c.py:f >="]),
    NUMBERS,
    st.sampled_from(["{}", "{}%", "baseline - {}", "baseline + {}%"]),
)
def test_what_is_printed_is_read_as_the_same(value: str, number: float, limit: str) -> None:
    keep = Keep.parse(f"{value} {limit.format(number)}")
    assert Keep.parse(str(keep)) == keep
    assert str(Keep.parse(str(keep))) == str(keep)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosin >= 0.9", "there is no metric 'cosin'; did you mean 'cosine'?"),
        ("cosine.p5 >= 0.9", "cosine has no statistic 'p5'; did you mean 'p1'|known: max, mean"),
        ("flips.p99 <= 0.9", "flips has no statistic 'p99'; known: mean"),
        ("cosine > 0.9", "cannot be read; expected METRIC"),
        ("cosine 0.9", "cannot be read"),
        ("", "cannot be read"),
        ("cosine >= ", "' ' is no limit"),
        ("cosine >= high", "'high' is no limit"),
        ("cosine >= basline - 1%", "'basline - 1%' is no limit"),
        ("cosine >= 1e999", "is too large a number"),
        ("two words >= 1", "'two words' is no value"),
        ("cosine.mean <= 0.9", "asks cosine to be bad: larger is better; write >="),
        ("flips >= 1%", "asks flips to be bad: smaller is better; write <="),
        ("flips <= -1", "flips is never below 0"),
        ("cosine >= 99", "cosine is never above 1"),
        ("accuracy >= 101%", "accuracy is never above 1"),
    ],
)
def test_a_line_that_cannot_be_kept_is_refused(text: str, message: str) -> None:
    with pytest.raises(GrammarError, match=message):
        Keep.parse(text)


@pytest.mark.parametrize(
    "lines",
    [
        ["a.py:f >= 0.99", "a.py:f <= 0.9"],
        ["a.py:f <= baseline - 1%", "a.py:f >= baseline"],
    ],
)
def test_lines_that_contradict_each_other_are_refused(lines: list[str]) -> None:
    with pytest.raises(UsageError, match=f"'{lines[0]}' contradicts '{lines[1]}'"):
        budget(lines)


def test_lines_about_other_things_do_not_contradict() -> None:
    lines = ["a.py:f >= 0.9", "a.py:f <= 0.99", "a.py:g <= 0.1", "cosine >= 0.9", "cosine.p1 >= 0"]
    assert [str(keep) for keep in budget(lines)] == lines


def score(predictions: Any, labels: Any) -> float:
    return 1.0


@pytest.mark.parametrize(
    "lines", ["cosine >= 0.9", Keep("cosine", "", ">=", 0.9), (score, ">= 90%"), ["cosine >= 0.9"]]
)
def test_one_line_needs_no_list(lines: Any) -> None:
    (keep,) = budget(lines)
    assert str(keep) in ("cosine >= 0.9", "score >= 90%")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (score, r'keep=score has no limit; give both: keep=\(score, ">= baseline'),
        ((score, "0.9"), r"keep=\(score, '0.9'\) cannot be read"),
        (7, "keep=7 is no line of a budget"),
        ([None], "keep=None is no line of a budget"),
    ],
)
def test_what_is_no_line_is_refused(lines: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        budget(lines)
