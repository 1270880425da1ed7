"""Contests: contenders compute the same rows in turns, so that what slows the machine slows all."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from forwardpass.measuring.clocks import WALL, Clock, Took
from forwardpass.tuning.messages import OpenAnswer, TurnAnswer
from forwardpass.tuning.workshops import Rounds

_TURN_SECONDS: Final = 0.1
"""Of a turn at least: threads of the contender before it may spin for a while yet."""
_TURNS: Final = 3


class Turning(NamedTuple):
    """A contender that is open.

    Attributes:
        opened: what opening it took.
        turn: computes the rows, or the batch that begins with a row, so many times.
    """

    opened: OpenAnswer
    turn: Callable[[int, int], TurnAnswer]


def contest(
    contenders: Sequence[Turning],
    rows: int,
    batch: int | None,
    *,
    seconds: float,
    clock: Clock = WALL,
) -> list[Rounds]:
    """Turn by turn, the order alternating, for about so many seconds, at least three turns each.

    The first turn of each, which opens kernels, counts to `first_seconds` alone. Where a turn is
    short, the rows come several times in it, as often for each contender.
    """
    began = clock.now()
    firsts = [one.turn(0, 1) for one in contenders]
    seconds_each = [one.turn(0, 1).seconds for one in contenders]
    repeats = max(1, math.ceil(_TURN_SECONDS / max(min(seconds_each), 1e-9)))
    turns: list[list[TurnAnswer]] = [[] for _ in contenders]
    order = list(range(len(contenders)))
    while len(turns[0]) < _TURNS or clock.now() - began < seconds:
        first = len(turns[0]) * (batch or 0) % max(1, rows)
        for place in order:
            turns[place].append(contenders[place].turn(first, repeats))
        order.reverse()
    return [
        Rounds(
            turns=tuple(Took(turn.seconds, turn.cpu_seconds) for turn in own),
            first_seconds=one.opened.seconds
            + max(0.0, first.seconds - statistics.median(turn.seconds for turn in own)),
            peak_bytes=max(turn.peak_bytes for turn in own),
            rows=batch or rows,
            threads=one.opened.threads,
        )
        for one, first, own in zip(contenders, firsts, turns, strict=True)
    ]
