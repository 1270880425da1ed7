"""Suspects: whoever ends the process is convicted, and nobody else."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from forwardpass.serving.asking import Inquiry
from forwardpass.serving.suspects import Suspects
from forwardpass.serving.unanswered import AskedRow, Unanswered
from tests.serving.played import exchange_now


def rows(count: int) -> list[AskedRow]:
    loop = asyncio.new_event_loop()
    found: list[AskedRow] = []
    for n in range(count):
        asked = Inquiry(1, ["a"], None, True, 1, exchange_now())
        asker = Unanswered(asked, loop.create_future(), 0.0, 1)
        asker.rows = [AskedRow(n, n, 1, 0.0, asker=asker, place=0)]
        found += asker.rows
    loop.close()
    return found


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=20), min_size=1, max_size=3))
def test_those_that_are_fatal_are_convicted_and_all_others_are_answered(
    fatal: list[list[bool]],
) -> None:
    """Groups were in the engine together when it died; each is tried until none is left."""
    everyone = rows(sum(map(len, fatal)))
    left = iter(everyone)
    groups = [[next(left) for _ in group] for group in fatal]
    is_fatal = dict(zip(everyone, (each for group in fatal for each in group), strict=True))
    suspects, convicted, runs = Suspects(), set[AskedRow](), dict.fromkeys(everyone, 1)
    deaths = 1
    assert suspects.died(groups) is None
    while group := suspects.next():
        for row in group:
            runs[row] += 1
        if any(is_fatal[row] for row in group):
            deaths += 1
            guilty = suspects.died([group])
            if guilty is not None:
                convicted.add(guilty)
                guilty.asker.done = True
        else:
            for row in group:
                row.asker.done = True
    assert convicted == {row for row, it_is in is_fatal.items() if it_is}
    assert all(row.asker.done for row in everyone)
    assert not suspects
    for group in groups:
        halvings = len(group).bit_length()
        assert all(runs[row] <= 2 + halvings for row in group)
        if not any(is_fatal[row] for row in group):
            assert all(runs[row] == 2 for row in group), "executed at most twice"


def test_who_left_is_not_tried() -> None:
    group = rows(3)
    suspects = Suspects()
    suspects.died([group])
    group[1].asker.done = True
    assert suspects.next() == [group[0], group[2]]
    assert not suspects.next()
