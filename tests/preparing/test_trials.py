"""Trials: of batches that were timed, the one that is settled on is near the best there is."""

from __future__ import annotations

import numpy as np
import pytest

from forwardpass.preparing.trials import chosen


def rounds_of(
    generator: np.random.Generator, true: dict[int, float], late: set[int], scatter: float
) -> list[dict[int, float]]:
    """Sixteen rounds in which a machine is slower or faster, each size scatters, and some are there
    in the last four alone."""
    return [
        {
            size: float(seconds * level * generator.lognormal(0.0, scatter))
            for size, seconds in true.items()
            if number >= 12 or size not in late
        }
        for number, level in enumerate(generator.lognormal(0.0, 0.1, 16))
    ]


@pytest.mark.parametrize("scatter", [0.0, 0.02, 0.05, 0.15])
def test_what_is_settled_on_is_near_the_best(scatter: float) -> None:
    """However many sizes are about as good, and however few times some were tried."""
    generator = np.random.default_rng(0)
    true = {size: 1 + 1 / size + size / 300 for size in (1, 2, 4, 8, 12, 16, 24, 32, 64, 128)}
    best = min(true.values())
    lost = [
        true[chosen(rounds_of(generator, true, {12, 24, 64, 128}, scatter)).smallest] / best - 1
        for _ in range(40)
    ]
    assert np.mean([share <= 0.05 for share in lost]) >= 0.95


def test_a_smaller_size_is_settled_on_where_it_is_as_good_beyond_doubt() -> None:
    generator = np.random.default_rng(0)
    true = {4: 1.5, 8: 1.005, 16: 1.0, 32: 1.0}
    sure = chosen(rounds_of(generator, true, set(), 0.002))
    assert sure.smallest == 8
    doubtful = chosen(rounds_of(generator, true, set(), 0.2))
    assert doubtful.smallest == doubtful.best


def test_luck_of_few_rounds_is_to_be_looked_around_and_not_to_be_settled_on() -> None:
    rounds = [{8: 1.0, 16: 0.9 + 0.01 * (number % 2)} for number in range(10)]
    for number, lucky in enumerate((0.5, 0.85, 1.2)):
        rounds[number][32] = lucky
    found = chosen(rounds)
    assert (found.likely, found.best, found.smallest) == (32, 16, 16)
