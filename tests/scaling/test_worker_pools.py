"""Who is given what, and what becomes of it where workers end: by hands that are told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwardpass.errors import BuildError, PassError
from forwardpass.scaling import pools
from forwardpass.scaling.pools import CALL_ROWS, WorkerPool
from forwardpass.scaling.seats import AHEAD, Job, LostError, NotBegunError

Numbers = list[int]
DOUBLE: Job[Numbers, Numbers] = Job(
    "double",
    lambda given, start, stop: given[start:stop],
    lambda given, parts: [made for _, part in parts for made in part],
    lambda given: [-1],
    len,
)


class Doubling:
    """A worker that doubles numbers, in a thread of its own, and ends over `deadly` ones."""

    def __init__(self, name: str, deadly: Sequence[int] = (), slow: Sequence[int] = ()) -> None:
        self.name, self.deadly = name, set(deadly)
        self.slow = {number: threading.Event() for number in slow}
        self.calls: list[list[Numbers]] = []
        self.deaths = 0
        self.renewing: Callable[[], None] = lambda: None

    def call(self, method: str, given: Sequence[Numbers]) -> Future[list[Numbers]]:
        assert method == "double"
        future: Future[list[Numbers]] = Future()
        self.calls.append([*given])
        threading.Thread(target=self._compute, args=(given, future)).start()
        return future

    def _compute(self, given: Sequence[Numbers], future: Future[list[Numbers]]) -> None:
        for number in (number for numbers in given for number in numbers):
            if number in self.slow:
                self.slow[number].wait(30)
            if number in self.deadly:
                self.deaths += 1
                future.set_exception(LostError(self.name))
                return
        future.set_result([[2 * number for number in numbers] for numbers in given])

    def renew(self) -> Future[None]:
        future: Future[None] = Future()
        try:
            self.renewing()
        except Exception as error:  # noqa: BLE001 - as a worker would say it
            future.set_exception(error)
        else:
            future.set_result(None)
        return future


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    made = WorkerPool()
    yield made
    made.close()


def doubled(pool: WorkerPool, given: Sequence[Numbers]) -> list[Numbers]:
    waiting = [pool.submit(DOUBLE, one) for one in given]
    return [one.result(30) for one in waiting]


def test_each_gets_its_own_answer_whoever_computes_it(pool: WorkerPool) -> None:
    hands = [Doubling("a"), Doubling("b"), Doubling("c")]
    given = [[number, number + 1] for number in range(0, 400, 2)]
    waiting = [pool.submit(DOUBLE, one) for one in given]
    for hand in hands:
        pool.begin(hand, DOUBLE)
    assert [one.result(30) for one in waiting] == [[2 * a, 2 * b] for a, b in given]
    assert sum(load.rows for load in pool.loads(DOUBLE)) == 400


def test_small_tasks_share_a_call_and_large_ones_do_not(pool: WorkerPool) -> None:
    hand = Doubling("a")
    waiting = [pool.submit(DOUBLE, [0] * 100) for _ in range(4)]
    waiting.append(pool.submit(DOUBLE, [0] * 1000))
    pool.begin(hand, DOUBLE)
    for one in waiting:
        one.result(30)
    assert [[len(task) for task in call] for call in hand.calls] == [[100, 100], [100, 100], [1000]]


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
@pytest.mark.parametrize("workers", [1, 3])
def test_the_row_that_ends_workers_is_found_and_only_it_is_left_out(
    pool: WorkerPool, rows: int, workers: int
) -> None:
    deadly = 3 % rows
    hands = [Doubling(str(number), [deadly]) for number in range(workers)]
    for hand in hands:
        pool.begin(hand, DOUBLE)
    before = [[1000 + n] * 300 for n in range(5)]
    made = doubled(pool, [*before, [*range(rows)], *before])
    expected = [-1 if number == deadly else 2 * number for number in range(rows)]
    assert made[5] == expected
    assert made[:5] == made[6:] == [[2 * n for n in one] for one in before]
    assert sum(hand.deaths for hand in hands) <= 4 + 2 * rows.bit_length()


def test_a_worker_that_is_killed_twice_costs_no_row(pool: WorkerPool) -> None:
    """Whoever kills a worker need not mean the row that it had."""
    hand = Doubling("a", [5])
    renewals = 0

    def renewing() -> None:
        nonlocal renewals
        renewals += 1
        if renewals > 2:
            hand.deadly = set()

    hand.renewing = renewing
    pool.begin(hand, DOUBLE)
    assert doubled(pool, [[5]]) == [[10]]
    assert hand.deaths == 2


def test_what_is_suspect_is_alone_on_its_worker(pool: WorkerPool) -> None:
    hand = Doubling("a", [0])
    for number in range(50):
        pool.submit(DOUBLE, [number, number])
    pool.begin(hand, DOUBLE)
    assert pool.submit(DOUBLE, [99]).result(30) == [198]
    with_deadly = [call for call in hand.calls if any(0 in task for task in call)]
    assert len(with_deadly[0]) > 1
    assert all(len(call) == 1 for call in with_deadly[1:])


def test_a_suspect_does_not_wait_for_all_others(pool: WorkerPool) -> None:
    """One worker is kept free for it, however much there is to do."""
    hand = Doubling("a", [5])
    hand.renewing = lambda: hand.deadly.clear()
    suspect = pool.submit(DOUBLE, [5])
    others = [pool.submit(DOUBLE, [1000 + number] * 200) for number in range(50)]
    order: list[int] = []
    suspect.add_done_callback(lambda _: order.append(5))
    for number, one in enumerate(others):
        one.add_done_callback(lambda _, number=number: order.append(1000 + number))
    pool.begin(hand, DOUBLE)
    assert suspect.result(30) == [10]
    for one in others:
        one.result(30)
    assert order.index(5) < 6


def test_who_ended_while_it_had_nothing_blames_no_row(pool: WorkerPool) -> None:
    """Its cluster put another one in its place, which says that it has not begun."""
    hand, anew = Doubling("a"), threading.Event()

    def not_begun(given: Sequence[Numbers], future: Future[list[Numbers]]) -> None:
        future.set_exception(NotBegunError("a"))

    def begun() -> None:
        anew.set()
        hand.__dict__.pop("_compute", None)

    hand.renewing = begun
    pool.begin(hand, DOUBLE)
    for _ in range(5):
        hand._compute = not_begun
        assert doubled(pool, [[7]]) == [[14]], "a row that five ends are not blamed on"
    assert anew.is_set()
    assert pool.loads(DOUBLE)[0].deaths == 5


class Patient:
    """A worker whose calls end when they are told to, and how."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: list[tuple[Future[list[Numbers]], Sequence[Numbers]]] = []

    def call(self, method: str, given: Sequence[Numbers]) -> Future[list[Numbers]]:
        future: Future[list[Numbers]] = Future()
        self.waiting.append((future, given))
        return future

    def end(self, *, dies: bool) -> None:
        future, given = self.waiting.pop(0)
        if dies:
            self.waiting.clear()
            future.set_exception(NotBegunError(self.name))
        else:
            future.set_result([*given])

    def renew(self) -> Future[None]:
        future: Future[None] = Future()
        future.set_result(None)
        return future


@given(
    workers=st.integers(1, 4),
    ends=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30),
)
def test_while_work_waits_every_worker_has_one_call_and_the_next(
    workers: int, ends: list[tuple[int, bool]]
) -> None:
    pool, hands = WorkerPool(), [Patient(str(number)) for number in range(workers)]
    for _ in range(2 * workers + len(ends)):
        pool.submit(DOUBLE, [0] * CALL_ROWS)
    for hand in hands:
        pool.begin(hand, DOUBLE)
    for number, dies in ends:
        assert [len(hand.waiting) for hand in hands] == [AHEAD] * workers
        hands[number % workers].end(dies=dies)
    assert [len(hand.waiting) for hand in hands] == [AHEAD] * workers
    pool.close()


def test_the_next_call_is_for_whoever_has_the_fewest(pool: WorkerPool) -> None:
    hands = [Patient("a"), Patient("b"), Patient("c")]
    for hand in hands:
        pool.begin(hand, DOUBLE)
    had: list[list[int]] = []
    for _ in range(3):
        pool.submit(DOUBLE, [0] * CALL_ROWS)
        had.append([len(hand.waiting) for hand in hands])
    assert [sorted(one) for one in had] == [[0, 0, 1], [0, 1, 1], [1, 1, 1]]


def test_who_is_late_is_not_waited_for(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_LATE_SECONDS", 0.5)
    late, quick = Doubling("late", slow=[7]), Doubling("quick")
    pool.begin(late, DOUBLE)
    assert doubled(pool, [[1]] * 5) == [[2]] * 5
    waiting = pool.submit(DOUBLE, [7])
    pool.begin(quick, DOUBLE)
    assert waiting.result(20) == [14]
    late.slow[7].set()
    assert doubled(pool, [[1]]) == [[2]]
    assert sum(load.rows for load in pool.loads(DOUBLE)) == 7, "counted once"


def test_what_no_row_is_to_blame_for_ends_all(pool: WorkerPool) -> None:
    hand = Doubling("a")

    def renewing() -> None:
        raise BuildError("no such backend")

    hand.renewing = renewing
    pool.begin(hand, DOUBLE)
    with pytest.raises(BuildError, match="no such backend"):
        pool.submit(DOUBLE, [1]).result(30)


def test_a_worker_that_cannot_be_begun_is_given_up_and_the_last_one_is_said(
    pool: WorkerPool,
) -> None:
    bad, good = Doubling("bad"), Doubling("good", slow=[7])

    def renewing() -> None:
        raise LostError("out of memory")

    bad.renewing = renewing
    pool.begin(bad, DOUBLE)
    with pytest.raises(PassError, match="no worker is left: bad, the last one, ended 3 times"):
        pool.submit(DOUBLE, [1]).result(30)
    other = WorkerPool()
    other.begin(good, DOUBLE)
    other.begin(bad, DOUBLE)
    assert doubled(other, [[1], [2]]) == [[2], [4]]
    good.slow[7].set()
    other.close()


def test_once_closed_nothing_waits(pool: WorkerPool) -> None:
    waiting = pool.submit(DOUBLE, [1])
    pool.close()
    with pytest.raises(RuntimeError):
        waiting.result(5)
