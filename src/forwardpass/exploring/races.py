"""Races: rows one by one against one batch, and batches of many sizes, timed in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from forwardpass.building.replicas import Inputs
from forwardpass.errors import PassError, UsageError, said
from forwardpass.exploring.explorations import Exploration
from forwardpass.measuring.clocks import WALL, Took
from forwardpass.measuring.timings import Timing, timing
from forwardpass.nouns.progress import Steps
from forwardpass.preparing.identity import digest
from forwardpass.preparing.preparing import built
from forwardpass.profiling.contenders import Contender
from forwardpass.profiling.ladders import Ladder
from forwardpass.profiling.points import turn_seconds

MOST_ROWS: Final = 512
_LONGEST_SECONDS: Final = 0.4
"""That a batch is expected to take at most: between two of them one may be stopped."""
_TRY_SECONDS: Final = 0.2
_FEWEST_ROUNDS: Final = 5
_MOST_ROUNDS: Final = 50


@dataclass(frozen=True)
class StoppableContender(Contender):
    """A Contender that looks before each batch whether anybody waits for it."""

    steps: Steps = field(default_factory=Steps)

    def calling(self, inputs: Inputs) -> Callable[[], Any]:
        compute = super().calling(inputs)

        def looked() -> Any:
            self.steps.look()
            return compute()

        return looked


class Raced(NamedTuple):
    """What rows took one by one, and as one batch.

    Attributes:
        alone: all of them one after the other; one: the one in the middle of these.
        each: seconds of each row. together: of the batch.
    """

    rows: int
    alone: Timing
    one: Timing
    each: tuple[float, ...]
    together: Timing


def contender(exploration: Exploration, steps: Steps) -> StoppableContender:
    """What computes the rows, as it is deployed. Raises UsageError where nothing can be run, or no
    batch can be made."""
    given = exploration.given
    if given is None:
        raise UsageError(f"{exploration.name} was saved: it holds no model to time")
    load = given.load
    steps.begin("building", 1)
    engine = exploration.once("engine", -1, lambda: built(load.forward, load.rows))
    sha256 = exploration.once("digest", -1, lambda: digest(load.forward))
    return StoppableContender(load, engine, sha256, steps)


def sizes(one: Contender) -> list[int]:
    """The batches to time: one row, and twice as many each time, as long as one takes little even
    if each row costs what it does alone. Raises PassError where one row raises."""
    try:
        call = one.call(1)
        with one.threads():
            (takes,) = one.clock.least(
                lambda: one.clock.seconds(call), rounds=20, enough_seconds=_TRY_SECONDS
            )
    except Exception as error:
        raise PassError(f"{one.load.forward}: one row raised: {said(error)}") from error
    found = [1]
    while 2 * found[-1] <= MOST_ROWS and 2 * found[-1] * takes <= _LONGEST_SECONDS:
        found.append(2 * found[-1])
    return found


def curve(one: Contender, batches: Sequence[int], seconds: float, steps: Steps) -> Ladder:
    """Batches of so many rows, each timed in rounds that all share, for about so long."""
    steps.begin("trying batches", len(batches))
    ladder = Ladder(one, batches)
    while not ladder.ended:
        ladder.step(_LONGEST_SECONDS)
        steps.advance()
    steps.begin("timing batches", 20)
    began, number = WALL.now(), 0
    while number < _FEWEST_ROUNDS or (number < _MOST_ROUNDS and WALL.now() - began < seconds):
        turn = turn_seconds(ladder.points)
        for point in ladder.points if number % 2 else reversed(ladder.points):
            point.take_turn(number, turn)
            steps.done = min(steps.total, int(steps.total * (WALL.now() - began) / seconds))
        number += 1
    return ladder


def ended(ladder: Ladder) -> str:
    """Why there are no larger batches, in a sentence."""
    last = ladder.points[-1].rows
    if last == MOST_ROWS:
        return f"{MOST_ROWS} rows are the most that are tried here"
    if ladder.why() == ladder.ended and ladder.ended and "asked for" not in ladder.ended:
        return ladder.ended
    return (
        f"a batch of {2 * last} rows may take longer than {_LONGEST_SECONDS:g} s, within which it "
        "could not be stopped"
    )


def raced(one: Contender, rows: int, seconds: float, steps: Steps) -> Raced:
    """So many rows one by one against one batch of them, in turns. Raises PassError where a batch
    raises."""
    steps.begin("one by one against a batch", 20)
    alone: list[list[float]] = []
    together: list[float] = []
    with one.threads() as threads:
        try:
            calls = [one.call(1, first=place) for place in range(rows)]
            batch = one.call(rows)
            for call in (*calls, batch):
                call()
        except Exception as error:
            raise PassError(f"a batch of {rows} rows raised: {said(error)}") from error

        def took(call: Callable[[], Any]) -> float:
            found: Took = one.clock.took(call)
            return one.trusted(found, threads)

        began = WALL.now()
        while len(alone) < _FEWEST_ROUNDS or (
            len(alone) < _MOST_ROUNDS and WALL.now() - began < seconds
        ):
            if len(alone) % 2:
                together.append(took(batch))
            alone.append([took(call) for call in calls])
            if len(together) < len(alone):
                together.append(took(batch))
            steps.done = min(steps.total, int(steps.total * (WALL.now() - began) / seconds))
    return Raced(
        rows,
        timing([sum(each) for each in alone]),
        timing([statistics.median(each) for each in alone]),
        tuple(statistics.median(each) for each in zip(*alone, strict=True)),
        timing(together),
    )
