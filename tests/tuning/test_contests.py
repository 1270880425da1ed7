"""Contests are fair: the same work in each turn, in alternating order."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from forwardpass.measuring.clocks import Clock
from forwardpass.tuning.contests import Turning, contest
from forwardpass.tuning.messages import OpenAnswer, TurnAnswer

SECONDS = st.lists(st.floats(1e-5, 2.0), min_size=1, max_size=4)


@given(SECONDS, st.floats(0.0, 5.0), st.integers(1, 50), st.none() | st.integers(1, 7))
def test_turns_are_as_many_and_as_long_for_each(
    seconds: list[float], budget: float, rows: int, batch: int | None
) -> None:
    now = 0.0
    asked: list[tuple[int, int, int]] = []

    def turning(place: int, each: float) -> Callable[[int, int], TurnAnswer]:
        def turn(first: int, repeats: int) -> TurnAnswer:
            nonlocal now
            slow = 10.0 if not any(who == place for who, *_ in asked) else 0.0
            asked.append((place, first, repeats))
            now += each * repeats + slow
            return TurnAnswer(each + slow, each, 1000 + place)

        return turn

    contenders = [Turning(OpenAnswer(0.5, 1), turning(*one)) for one in enumerate(seconds)]
    found = contest(contenders, rows, batch, seconds=budget, clock=Clock(now=lambda: now))
    count = len(seconds)
    rounds = [asked[i : i + count] for i in range(2 * count, len(asked), count)]
    assert len(rounds) >= 3
    for one, other in pairwise(rounds):
        assert [who for who, *_ in one] == [who for who, *_ in other][::-1]
    assert all(len({work[1:] for work in one}) == 1 for one in rounds)
    assert all(0 <= first < rows for one in rounds for _, first, _ in one)
    for place, (each, one) in enumerate(zip(seconds, found, strict=True)):
        assert [turn.seconds for turn in one.turns] == [each] * len(rounds)
        assert abs(one.first_seconds - 10.5) < 1e-6
        assert (one.peak_bytes, one.rows) == (1000 + place, batch or rows)
