"""Queue: rows that wait, with time as an argument: laws of what is dispatched, dropped, refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwardpass.batching.packing import Sizes
from forwardpass.batching.queues import Dispatch, Queue
from forwardpass.batching.waiting import WaitingRow
from forwardpass.nouns.costs import CostPoint, CostTable

TEXTS = CostTable(
    tuple(
        CostPoint(rows, {}, cells, 0.004 + 1e-4 * rows * cells)
        for cells in (8, 32, 128)
        for rows in (1, 2, 4, 8, 16)
        if rows * cells <= 512
    )
)
ONE_SHAPE = CostTable(
    tuple(CostPoint(rows, {}, 1, 40e-6 + 1e-6 * rows) for rows in (1, 4, 16, 64, 256))
)


def product(sizes: Sizes) -> Any:
    return np.maximum(sizes.prod(axis=-1), 1)


def texts(paddable: bool = True, steps: tuple[int, ...] = (), **limits: int) -> Queue:
    most = {"most_rows": 10_000, "most_bytes": 1 << 30} | limits
    return Queue(TEXTS, (paddable,), product, steps=[steps], **most)


def row(id: int, cells: int | None = 8, **given: Any) -> WaitingRow:
    sizes = None if cells is None else (cells,)
    fields: dict[str, Any] = {"request": id, "bytes": 10, "arrived": 0.0, "sizes": sizes}
    return WaitingRow(id, **fields | given)


def ids(dispatch: Dispatch | None) -> list[int]:
    assert dispatch is not None
    return sorted(row.id for row in dispatch.rows)


def drained(queue: Queue, now: float = 0.0) -> list[Dispatch]:
    """What an engine that takes as long as is predicted gets, one after the other."""
    found: list[Dispatch] = []
    while (dispatch := queue.next(now)) is not None:
        found.append(dispatch)
        now += dispatch.seconds
        queue.done(dispatch, now, dispatch.seconds)
    return found


def test_a_batch_is_formed_when_the_engine_is_free_and_not_before() -> None:
    queue = texts()
    queue.add(row(1))
    first = queue.next(0.0)
    assert ids(first) == [1]
    for number in range(2, 6):
        queue.add(row(number))
        assert queue.next(0.001) is None
    assert first is not None
    queue.done(first, 0.005, 0.005)
    assert ids(queue.next(0.005)) == [2, 3, 4, 5]


def test_a_machine_that_was_slow_for_a_while_is_asked_again() -> None:
    """Where each row is refused for what batches took, no batch would tell that they do not."""
    queue, now = texts(), 0.0
    slo = 1.5 * queue.costs.seconds(1, 8)
    for number in range(60):
        queue.add(row(number))
        dispatch = queue.next(now)
        assert dispatch is not None
        now += 5 * dispatch.seconds
        queue.done(dispatch, now, 5 * dispatch.seconds / queue.costs.factor)
    refused = 0
    while (refusal := queue.admits(now, [9], deadline=now + slo, cells=[8])) is not None:
        assert refusal.least > slo
        now, refused = now + 0.01, refused + 1
        assert refused < 2_000
    queue.add(row(99, 8, deadline=now + slo))
    assert not queue.late(now)
    assert ids(queue.next(now)) == [99]
    hopeless = queue.admits(now, [9], deadline=now + 1e-6, cells=[8])
    assert hopeless is not None
    assert hopeless.least > 1e-6


def test_of_costs_below_the_trip_two_are_under_way() -> None:
    queue = Queue(ONE_SHAPE, (), lambda sizes: np.ones(len(sizes), int), most_rows=99, most_bytes=1)
    for number in range(40):
        queue.costs.learn_trip(200e-6)
        queue.add(row(number, bytes=0, sizes=()))
        if number == 20:
            assert len(ids(queue.next(0.0))) == 21
    assert len(ids(queue.next(0.0))) == 19
    queue.add(row(99, bytes=0, sizes=()))
    assert queue.next(0.0) is None


def test_neighbours_in_length_are_taken_and_padding_that_does_not_pay_is_not() -> None:
    queue = texts()
    for number, cells in enumerate((8, 128, 8, 10, 120, 9, 12)):
        queue.add(row(number, cells))
    assert [ids(dispatch) for dispatch in drained(queue)] == [[0, 2, 3, 5, 6], [1, 4]]


def test_the_oldest_is_always_in_and_an_earlier_deadline_comes_first() -> None:
    queue = texts()
    queue.add(row(1, 128, deadline=9.0))
    for number in range(2, 30):
        queue.add(row(number, 8, deadline=10.0))
    queue.add(row(30, 32, deadline=5.0))
    assert 30 in ids(queue.next(0.0))
    queue = texts()
    queue.add(row(1, 128))
    for number in range(2, 30):
        queue.add(row(number, 8))
    assert 1 in ids(queue.next(0.0))


def test_a_batch_grows_no_further_than_the_slack_of_its_oldest() -> None:
    queue = texts()
    queue.add(row(1, 32, deadline=0.012))
    for number in range(2, 10):
        queue.add(row(number, 32, deadline=9.0))
    found = queue.next(0.0)
    assert found is not None
    assert found.why == "slack"
    assert found.seconds <= 0.012
    assert ids(found) == [1, 2]


def test_hopeless_rows_leave_before_they_cost() -> None:
    queue = texts()
    queue.add(row(1, 128, deadline=0.010))
    queue.add(row(2, 128, deadline=0.100))
    queue.add(row(3, None, deadline=0.001))
    assert queue.wakes() <= 0.001
    assert [late.id for late in queue.late(0.002)] == [1, 3]
    assert ids(queue.next(0.002)) == [2]
    assert not queue.late(9.0)
    assert (len(queue), queue.bytes) == (0, 0)


def test_a_row_that_leaves_for_the_sake_of_others_is_told_at_once() -> None:
    queue = texts()
    queue.add(row(0, deadline=0.005))
    for number in range(1, 31):
        queue.add(row(number, deadline=9.0))
    assert queue.admits(0.0, [10], cells=[8], deadline=0.010) is not None
    assert queue.wakes() > 0
    assert 0 not in ids(queue.next(0.0)), "alone it would cost as much as several of the others"
    assert queue.wakes() == -math.inf
    assert [late.id for late in queue.late(0.0)] == [0]
    assert queue.wakes() > 0


@pytest.mark.parametrize(("base", "each"), [(0.0, 0.004), (0.004, 0.004), (0.02, 0.001)])
def test_at_three_times_what_it_can_as_many_are_in_time(base: float, each: float) -> None:
    """However much of its cost the rows of a batch share; one in 50 takes thrice as long."""
    table = CostTable(tuple(CostPoint(n, {}, 1, base + each * n) for n in (1, 2, 4, 8, 16)))
    capacity = 16 / (base + 16 * each)
    queue = Queue(table, (), lambda s: np.ones(len(s), int), most_rows=10_000, most_bytes=1 << 30)
    now, answered, batches = 0.0, 0, 0
    asked, number = np.arange(3000) / (3 * capacity), 0
    while now < asked[-1]:
        while number < len(asked) and asked[number] <= now:
            arrived = float(asked[number])
            if queue.admits(arrived, [10], deadline=arrived + 0.25, cells=[1]) is None:
                queue.add(row(number, 1, arrived=arrived, deadline=arrived + 0.25, sizes=()))
            number += 1
        queue.late(now)
        dispatch = queue.next(now)
        if dispatch is None:
            now = float(asked[number])
            continue
        batches += 1
        seconds = dispatch.seconds / queue.costs.factor * (1 if batches % 50 else 3)
        now += seconds
        queue.done(dispatch, now, seconds)
        answered += sum(now <= waited.deadline for waited in dispatch.rows)
    assert answered >= 0.9 * capacity * now / 1.04, "of the capacity with those that take thrice"


def test_admission_counts_what_waits_and_what_is_under_way() -> None:
    queue = texts(most_rows=50)
    assert queue.admits(0.0, [10], cells=[128], deadline=0.020) is None
    late = queue.admits(0.0, [10], cells=[128], deadline=0.010)
    assert late is not None
    assert late.reason == "late"
    assert 0 < late.seconds < 0.010
    for number in range(40):
        queue.add(row(number, 128))
    assert queue.next(0.0) is not None
    late = queue.admits(0.0, [10], cells=[128], deadline=0.1)
    assert late is not None
    assert 0.2 < late.seconds < 0.6
    assert queue.admits(0.0, [10], cells=[128]) is None
    full = queue.admits(0.0, [10] * 20, deadline=9.0)
    assert full is not None
    assert full.reason == "full"
    assert full.seconds > 0


def test_what_waits_to_be_encoded_is_predicted_by_its_bytes() -> None:
    queue = texts()
    for number in range(20):
        queue.add(row(number, None, bytes=40))
        queue.sized(number, (8,))
        queue.add(row(100 + number, None, bytes=640))
        queue.sized(100 + number, (128,))
    drained(queue)
    before = queue.wait(0.0)
    queue.add(row(200, None, bytes=640))
    long = queue.wait(0.0) - before
    queue.add(row(201, None, bytes=40))
    short = queue.wait(0.0) - before - long
    assert long > 8 * short > 0
    assert queue.next(0.0) is None
    queue.sized(200, (128,))
    queue.sized(999, (1,))
    assert ids(queue.next(0.0)) == [200]


@given(st.floats(0.2, 5.0), st.lists(st.integers(0, 40), max_size=8))
def test_if_all_batches_take_k_times_as_long_so_does_the_prediction(
    k: float, outliers: list[int]
) -> None:
    queue = texts()
    for number in range(60):
        queue.add(row(number, 32))
        dispatch = queue.next(0.0)
        assert dispatch is not None
        took = 0.0072 * (50.0 if number in outliers else k)
        queue.done(dispatch, 0.0, took)
    assert math.isclose(queue.costs.factor, k, rel_tol=1e-9)


def test_what_did_not_fit_into_memory_is_remembered() -> None:
    queue = texts()
    queue.costs.refused(256)
    for number in range(12):
        queue.add(row(number, 32))
    assert [len(dispatch.rows) for dispatch in drained(queue)] == [4, 4, 4]
    queue.add(row(99, 500))
    assert ids(queue.next(9.0)) == [99]


def test_rows_without_a_deadline_do_not_starve_beside_those_that_have_one() -> None:
    queue, now = texts(), 0.0
    for number in range(2, 30):
        queue.add(row(number, 32, arrived=now, deadline=now + 0.1, group="a"))
    queue.add(row(1, 32, arrived=now, group="b"))
    for number in range(30, 400):
        queue.add(row(number, 32, arrived=now, deadline=now + 0.1, group="a"))
        dispatch = queue.next(now)
        assert dispatch is not None
        if 1 in ids(dispatch):
            break
        now += dispatch.seconds
        queue.done(dispatch, now, dispatch.seconds)
        for more in range(16):
            queue.add(row(1000 * number + more, 32, arrived=now, deadline=now + 0.1, group="a"))
    else:
        raise AssertionError("it starved")
    assert now <= 0.1 + 0.1


def test_of_two_axes_rows_of_a_shape_go_together_and_pads_are_counted() -> None:
    costs = CostTable(
        tuple(
            CostPoint(rows, {}, cells, 0.001 + 1e-6 * rows * cells)
            for cells in (100, 10_000)
            for rows in (1, 2, 4, 8)
        )
    )
    queue = Queue(costs, (True, True), product, most_rows=99, most_bytes=1 << 20)
    for number in range(12):
        tall = (100 + number % 3, 10) if number % 2 else (10, 100)
        queue.add(row(number, sizes=tall))
    batches = drained(queue)
    assert sorted(number for batch in batches for number in ids(batch)) == list(range(12))
    assert all(batch.sizes in {(10, 100), (100, 10), (101, 10), (102, 10)} for batch in batches)
    assert sum(batch.seconds for batch in batches) < 0.022
    # Neither in order of cells nor of one axis alone do those of a shape stand together.
    for number, size in enumerate((200, 100, 210, 105, 220, 110)):
        queue.add(row(20 + number, sizes=(size, 20) if number % 2 else (20, size)))
    assert [ids(batch) for batch in drained(queue)] == [[20, 22, 24], [21, 23, 25]]


def test_a_long_queue_is_decided_on_quickly_and_well() -> None:
    queue = texts()
    for number in range(3_000):
        queue.add(row(number, 1 + number * 7 % 97))
    batches = drained(queue)
    assert sorted(number for batch in batches for number in ids(batch)) == list(range(3_000))
    # What it costs is close to what is left of it when nothing is padded and no batch is small.
    least = sum(1e-4 * (1 + number * 7 % 97) for number in range(3_000))
    assert sum(batch.seconds for batch in batches) < 1.35 * least


def test_what_was_under_way_in_vain_is_put_back_in_its_place() -> None:
    queue = texts()
    for number in range(3):
        queue.add(row(number, deadline=1.0 + number))
    dispatch = queue.next(0.0)
    assert dispatch is not None
    queue.add(row(7, deadline=0.5))
    queue.done(dispatch, 0.1, None)
    for waits in dispatch.rows:
        waits.group = f"suspects {waits.id % 2}"
        queue.add(waits)
    assert [ids(batch) for batch in drained(queue, 0.1)] == [[7], [0, 2], [1]]
    assert queue.costs.factor == 1.0


GIVEN = st.lists(
    st.tuples(
        st.sampled_from((1, 8, 9, 31, 32, 100, 128, 700)),  # cells
        st.sampled_from((0.002, 0.02, 0.05, 0.3, math.inf)),  # from arrival to deadline
        st.integers(0, 1),  # priority
        st.sampled_from(("a", "b")),  # group
        st.floats(0, 0.01),  # since the row before
        st.sampled_from(("stays", "stays", "stays", "leaves", "encoded", "never encoded")),
    ),
    max_size=60,
)


def served(
    rows: Sequence[Any], paddable: bool, slower: float = 1.0, steps: tuple[int, ...] = ()
) -> list[Any]:
    """Everything that happens, in order, with an engine that is slower than it was measured."""
    queue, now, number = texts(paddable, steps), 0.0, 0
    happened: list[Any] = []
    busy: tuple[float, Dispatch] | None = None
    arrivals: list[tuple[float, WaitingRow, str, int]] = []
    for number, (cells, patience, priority, group, since, fate) in enumerate(rows):
        now += since
        waits = row(
            number, None if "encoded" in fate else cells, arrived=now, deadline=now + patience,
            priority=priority, group=group,
        )  # fmt: skip
        arrivals.append((now, waits, fate, cells))
    now = 0.0
    while arrivals or busy or len(queue):
        times = [arrivals[0][0]] if arrivals else []
        times += [busy[0]] if busy else []
        now = max(now, min(times, default=now))
        if busy and busy[0] <= now:
            queue.done(busy[1], now, busy[1].seconds * slower)
            busy = None
        while arrivals and arrivals[0][0] <= now:
            _, waits, fate, cells = arrivals.pop(0)
            queue.add(waits)
            if fate == "leaves":
                happened += [("left", gone.id) for gone in queue.drop([waits.id])]
            if fate == "encoded":
                queue.sized(waits.id, (cells,))
        happened += [("late", late.id, now) for late in queue.late(now)]
        dispatch = queue.next(now)
        happened += [("late", late.id, now) for late in queue.late(now)]
        if dispatch is not None:
            assert busy is None
            best = max(waits.priority for waits in dispatch.rows)
            assert all(waits.priority == best for waits in dispatch.rows)
            happened.append(("sent", dispatch, now))
            busy = (now + dispatch.seconds * slower, dispatch)
        elif not arrivals and busy is None and len(queue):
            happened += [("unencoded", gone.id) for gone in queue.drop(range(len(rows)))]
    return happened


@settings(deadline=None)
@given(GIVEN, st.booleans(), st.floats(0.5, 3.0), st.sampled_from(((), (8, 20, 32, 100))))
def test_each_row_is_sent_or_dropped_once_and_batches_keep_the_laws(
    rows: Sequence[Any], paddable: bool, slower: float, steps: tuple[int, ...]
) -> None:
    happened = served(rows, paddable, slower, steps)
    gone: list[int] = []
    for kind, what, *_ in happened:
        if kind != "sent":
            gone.append(what)
            continue
        gone += [waits.id for waits in what.rows]
        own = [size for waits in what.rows for size in waits.sizes]
        sizes = {(next((step for step in steps if step >= size), size),) for size in own}
        assert len({(waits.group, waits.priority) for waits in what.rows}) == 1
        assert paddable or len(sizes) == 1
        assert what.sizes == max(sizes)
        assert what.cells == what.sizes[0]
        assert len(what.rows) == 1 or len(what.rows) <= TEXTS.ceiling(what.cells)
    assert sorted(gone) == list(range(len(rows)))
    again = served(rows, paddable, slower, steps)
    assert [said(one) for one in happened] == [said(other) for other in again]


def said(event: Any) -> Any:
    return event if event[0] != "sent" else (ids(event[1]), event[1].seconds, event[2])


@settings(deadline=None)
@given(GIVEN)
def test_none_waits_for_a_lower_priority_and_none_starves(rows: Sequence[Any]) -> None:
    """Among rows that wait together: by priority, and within it the earliest is in."""
    queue = texts()
    for number, (cells, _, priority, group, _, _) in enumerate(rows):
        queue.add(row(number, cells, priority=priority, group=group))
    waiting = dict(enumerate(rows))
    for dispatch in drained(queue):
        top = max(given[2] for given in waiting.values())
        first = min(number for number, given in waiting.items() if given[2] == top)
        assert first in ids(dispatch)
        for number in ids(dispatch):
            assert waiting.pop(number)[2] == top
    assert not waiting
