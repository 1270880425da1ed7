"""Calibration: sizes of batches are tried on rows whose results are kept, till one is the best."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwardpass.batching.packing import pack
from forwardpass.batching.slicing import alike
from forwardpass.executing.batches import Result
from forwardpass.measuring.clocks import Clock
from forwardpass.measuring.memory import Growth
from forwardpass.preparing.calibrating import Calibration, Pool
from forwardpass.preparing.trials import Trials, gains, size_of

WHOLE = Result(((0, 1, {}),))
HALVED = Result(((0, 1, {}), (1, 2, {})), refused_cells=1)
BAD = Result(((0, 1, {}),), {1: ValueError("a bad row")})
Cost = Callable[[int, int], float]
"""Seconds of a batch of so many rows of so many cells each."""


def area(sizes: np.ndarray) -> np.ndarray:
    return np.maximum(sizes.prod(axis=-1), 1)


def text(rows: int, cells: int) -> float:
    """As a sentence encoder costs: something a batch, and more a cell beyond what caches hold."""
    total = rows * cells
    return 0.014 + total * (2e-4 + 1e-7 * max(0, total - 1_100))


def image(rows: int, _: int) -> float:
    """As a small network costs: its best batch holds about a thousand rows."""
    return 1e-4 + rows * (4e-6 + 3e-10 * max(0, rows - 1_000))


class Machine:
    """Computes batches on a clock that only it moves; `busy` draws how much slower each one is."""

    def __init__(self, cost: Cost, busy: Callable[[], float] = lambda: 1.0) -> None:
        self.cost, self.busy, self.now = cost, busy, 0.0
        self.batches: list[np.ndarray] = []
        self.bytes, self.bytes_a_cell = 0, 0
        self.results: Callable[[int, int], Result] = lambda rows, cells: WHOLE

    def __call__(self, rows: np.ndarray, sizes: tuple[int, ...], cells: int) -> Result:
        self.batches.append(rows)
        self.now += self.cost(len(rows), cells) * self.busy()
        self.bytes = max(self.bytes, len(rows) * cells * self.bytes_a_cell)
        return self.results(len(rows), cells)

    def seconds(self, sizes: np.ndarray, plan: list[np.ndarray]) -> float:
        """Of a plan, when nothing else runs."""
        return sum(self.cost(len(batch), int(area(sizes[batch].max(axis=0)))) for batch in plan)


class Grown(Growth):
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def bytes(self) -> int:
        return self._machine.bytes


def calibrated(
    machine: Machine,
    sizes: np.ndarray,
    known: Trials | None = None,
    *,
    paddable: tuple[bool, ...] = (True,),
    free_bytes: int = 1 << 40,
    most_rows: int = 8_192,
) -> Calibration:
    clock = Clock(lambda: machine.now)
    found = Calibration(
        known or Trials(), free_bytes=free_bytes, growth=Grown(machine), clock=clock
    )
    names = ["tokens", "width"][: sizes.shape[1]]
    found.over(Pool(sizes, names, paddable[: len(names)], area, machine, most_rows))
    return found


def lengths(count: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).lognormal(4.0, 0.55, count)
    return np.clip(values, 26, 256).astype(np.int64)[:, None]


def by_hand(sizes: np.ndarray, cells: int) -> list[np.ndarray]:
    """What people write: sorted, the longest first, batches of at most so many padded cells."""
    order, plan = np.argsort(-sizes[:, 0], kind="stable"), []
    while len(order):
        count = max(1, cells // int(sizes[order[0], 0]))
        plan, order = [*plan, order[:count]], order[count:]
    return plan


def test_rows_of_varied_length_end_at_the_best_size_and_cost_no_more_than_by_hand() -> None:
    sizes = lengths(1_536)
    machine = Machine(text)
    found = calibrated(machine, sizes)
    assert found.trials.settled
    assert found.trials.contest() == (1_024, ())
    best = min(machine.seconds(sizes, by_hand(sizes, 1 << power)) for power in range(6, 13))
    plan = pack(sizes, (True,), area, found.trials.table())
    assert machine.seconds(sizes, plan) < best / 0.97

    early = machine.batches
    rest = np.setdiff1d(np.arange(len(sizes)), np.concatenate(early))
    others = [rest[batch] for batch in pack(sizes[rest], (True,), area, found.trials.table())]
    assert machine.seconds(sizes, [*early, *others]) < best / 0.93, "measuring is nearly free"


def test_rows_of_one_shape_end_at_the_best_count() -> None:
    machine, sizes = Machine(image), np.zeros((65_536, 0), np.int64)
    found = calibrated(machine, sizes)
    assert found.trials.settled
    assert found.trials.contest()[0] == 1_024
    assert np.concatenate(machine.batches).tolist() == list(range(sum(map(len, machine.batches))))
    assert {len(range(8_192)[span]) for span in alike(8_192, 1, found.trials.table())} == {1_024}


def test_a_machine_that_others_use_is_found_out_or_not_believed() -> None:
    """Every second batch or so takes up to twice its time."""
    lost: list[float] = []
    for seed in range(16):
        generator = np.random.default_rng(seed)
        busy = (1 + generator.random() * (generator.random() < 0.5) for _ in range(10_000))
        machine, sizes = Machine(text, busy.__next__), lengths(1_024, seed)
        trials = calibrated(machine, sizes).trials
        assert trials.settled == (not trials.contest()[1])
        plan, by = pack(sizes, (True,), area, trials.table()), by_hand(sizes, 1_024)
        lost.append(machine.seconds(sizes, plan) / machine.seconds(sizes, by))
    assert np.mean(lost) < 1.05
    assert max(lost) < 1.3


def test_what_is_not_settled_goes_on_in_the_next_run() -> None:
    machine, sizes = Machine(text), lengths(1_024)
    first = calibrated(machine, sizes[:40])
    assert not first.trials.settled
    assert first.trials.rows == 40
    assert first.trials.table().seconds(1, 64) > 0
    second = calibrated(machine, sizes, first.trials)
    assert second.trials.settled
    assert second.trials.contest()[0] == 1_024
    assert second.trials.rows == 40 + 1_024
    tried = len(machine.batches)
    calibrated(machine, sizes, second.trials)
    assert len(machine.batches) == tried, "nothing is left to try"


def test_rows_that_cost_next_to_nothing_go_on_over_the_blocks() -> None:
    machine = Machine(image)
    clock = Clock(lambda: machine.now)
    found = Calibration(Trials(), free_bytes=1 << 40, growth=Grown(machine), clock=clock)
    blocks = 0
    while not found.trials.settled:
        found.over(Pool(np.zeros((4_096, 0), np.int64), (), (), area, machine))
        blocks += 1
    assert 2 < blocks * 4_096 / 1_024 < 64, "within what a shard holds"
    assert found.trials.contest()[0] == 1_024
    assert found.seconds == pytest.approx(machine.now)


def test_the_longest_rows_come_first_so_that_what_fits_there_fits_everywhere() -> None:
    machine, sizes = Machine(text), lengths(1_024)
    found = calibrated(machine, sizes)
    assert sizes[machine.batches[0], 0].tolist() == [sizes.max()]
    climb = found.trials.rounds[0]
    assert [size_of(point) for point in climb] == [256, 512, 1_024, 2_048]
    table = found.trials.table()
    assert all(table.ceiling(cells) * cells <= 2_048 for cells in (32, 64, 256))


def test_memory_bounds_what_is_tried() -> None:
    machine, sizes = Machine(lambda rows, cells: 1.0), lengths(1_024)
    machine.bytes_a_cell = 1_000
    found = calibrated(machine, sizes, free_bytes=4 * 1_100_000)
    assert max(size_of(p) for turn in found.trials.rounds for p in turn) == 1_024
    assert found.trials.table().ceiling(64) <= 16


def test_what_is_halved_does_not_fit() -> None:
    machine, sizes = Machine(lambda rows, cells: 1.0), lengths(1_024)
    machine.results = lambda rows, cells: WHOLE if rows * cells <= 600 else HALVED
    found = calibrated(machine, sizes)
    assert max(size_of(p) for turn in found.trials.rounds for p in turn) == 512
    assert found.trials.settled


def test_a_batch_with_a_bad_row_is_not_believed() -> None:
    machine, sizes = Machine(text), lengths(1_024)
    machine.results = lambda rows, cells: BAD if len(machine.batches) % 3 == 0 else WHOLE
    found = calibrated(machine, sizes)
    assert found.trials.contest()[0] == 1_024
    machine.results = lambda rows, cells: BAD
    assert calibrated(machine, sizes).trials == Trials(rows=1_024)


def test_without_padding_rows_of_one_size_are_tried() -> None:
    sizes = np.array([[8]] * 30 + [[9]] * 500 + [[10]] * 40)
    machine = Machine(text)
    calibrated(machine, sizes, paddable=(False,))
    assert {int(size) for batch in machine.batches for size in sizes[batch, 0]} == {9}


def test_a_batch_holds_no_more_rows_than_a_window() -> None:
    machine = Machine(lambda rows, cells: 1.0)
    found = calibrated(machine, np.zeros((4_096, 0), np.int64), most_rows=64)
    assert max(map(len, machine.batches)) == 64
    assert found.trials.settled


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=80),
    st.sampled_from([(True, True), (True, False), (False, False)]),
)
def test_any_rows_are_taken_once_and_give_costs(
    pairs: list[tuple[int, int]], paddable: tuple[bool, ...]
) -> None:
    sizes = np.array(pairs, np.int64).reshape(-1, 2)
    machine = Machine(text)
    found = calibrated(machine, sizes, paddable=paddable) if len(sizes) else None
    rows = np.concatenate([*machine.batches, np.zeros(0, np.int64)])
    assert len(np.unique(rows)) == len(rows)
    for batch in machine.batches:
        for axis, free in enumerate(paddable):
            assert free or len(np.unique(sizes[batch, axis])) == 1
    if found is not None:
        table = found.trials.table()
        plan = pack(sizes, paddable, area, table)
        assert sorted(np.concatenate(plan).tolist()) == list(range(len(sizes)))
        assert (table.row_seconds(area(sizes)) > 0).all()


def test_a_climb_ends_at_what_is_clearly_worse_or_gains_nothing_twice() -> None:
    def climb(*rates: float) -> bool:
        found = calibrated(Machine(text), lengths(64)).trials.rounds[0][0]
        import msgspec

        points = [
            msgspec.structs.replace(found, rows=1, cells=1 << i, seconds=rate * (1 << i))
            for i, rate in enumerate(rates)
        ]
        return gains(points)

    assert climb()
    assert climb(1.0)
    assert climb(1.0, 0.6, 0.5)
    assert climb(1.0, 0.99)
    assert climb(1.0, 0.99, 0.7)
    assert not climb(1.0, 0.99, 0.99)
    assert not climb(1.0, 0.5, 0.6)
    assert climb(1.0, 1.4), "two rows, of which threads make more work than they save"
    assert climb(1.0, 1.4, 0.8)
    assert not climb(1.0, 1.4, 1.3)


def test_trials_are_kept_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from forwardpass.measuring import caches

    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path))
    trials = calibrated(Machine(text), lengths(1_024)).trials
    identity: dict[str, Any] = {"model": "a"}
    caches.store("trials", identity, trials)
    assert caches.load("trials", identity, Trials) == trials


def test_rows_of_one_shape_reach_the_best_count_although_first_batches_and_others_are_slow() -> (
    None
):
    """The first batch of a shape makes its kernels; one in ten waits for another process."""

    def cold(rows: int, cells: int) -> float:
        first = rows not in seen
        seen.add(rows)
        return image(rows, cells) + 2e-3 * first

    lost: list[float] = []
    for seed in range(12):
        seen: set[int] = set()
        generator = np.random.default_rng(seed)
        hits = (1 + 3 * (generator.random() < 0.1) for _ in range(100_000))
        machine, sizes = Machine(cold, hits.__next__), np.zeros((65_536, 0), np.int64)
        table = calibrated(machine, sizes).trials.table()
        count = len(range(8_192)[alike(8_192, 1, table)[0]])
        lost.append(image(count, 1) / count / (image(1_024, 1) / 1_024))
    assert np.mean(lost) < 1.03
    assert max(lost) < 1.1


def reached(machine: Machine) -> float:
    """By which factor a row costs more than in the best batches, once the size is found."""
    table = calibrated(machine, np.zeros((65_536, 0), np.int64)).trials.table()
    count = len(range(8_192)[alike(8_192, 1, table)[0]])
    return image(count, 1) / count / (image(1_024, 1) / 1_024)


def test_rows_of_one_shape_are_tried_as_a_run_computes_them() -> None:
    """A batch after one of another size takes up to 1.6 times as long: no batch of a run does."""
    lost: list[float] = []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        machine = Machine(image)

        def switching(rows: int, cells: int) -> float:
            before = [len(batch) for batch in machine.batches[-2:-1]]  # noqa: B023
            slower = 1 if before == [rows] else 1 + 0.6 * generator.random()  # noqa: B023
            return image(rows, cells) * slower * (1 + 0.05 * abs(generator.normal()))  # noqa: B023

        machine.cost = switching
        lost.append(reached(machine))
    assert np.mean(lost) < 1.01
    assert max(lost) < 1.05


@pytest.mark.parametrize("began", [0.08, 0.1, 0.12, 0.14])
def test_a_moment_in_which_all_is_slow_does_not_end_the_climb(began: float) -> None:
    machine = Machine(image)
    machine.busy = lambda: 2.0 if began < machine.now < began + 0.015 else 1.0
    assert reached(machine) < 1.03


def attending(rows: int, cells: int) -> float:
    """As attention costs: longer rows cost more a cell; 1,024 cells are best, by little."""
    total = rows * cells
    return 0.01 + total * (1.6e-4 * (1 + cells / 2_300) + 1e-8 * max(0, total - 1_100))


def test_a_larger_batch_is_not_taken_for_better_because_its_rows_are_shorter() -> None:
    sizes = lengths(1_536)
    best = min(
        Machine(attending).seconds(sizes, by_hand(sizes, 1 << power)) for power in range(6, 13)
    )
    for seed in range(6):
        generator = np.random.default_rng(seed)
        machine = Machine(attending, lambda: 1 + 0.1 * generator.random())  # noqa: B023
        found = calibrated(machine, sizes)
        early = machine.batches
        assert size_of(found.trials.rounds[0][-1]) <= 4_096
        rest = np.setdiff1d(np.arange(len(sizes)), np.concatenate(early))
        plan = [rest[batch] for batch in pack(sizes[rest], (True,), area, found.trials.table())]
        assert machine.seconds(sizes, [*early, *plan]) < best / 0.95


def test_no_more_rows_are_taken_than_are_given_to_try_on() -> None:
    sizes = lengths(256)
    for most in (0, 1, 40, 128):
        machine = Machine(text)
        pool = Pool(sizes, ["tokens"], (True,), area, machine, taken_most=most)
        clock = Clock(lambda: machine.now)  # noqa: B023
        found = Calibration(Trials(), free_bytes=1 << 40, growth=Grown(machine), clock=clock)
        found.over(pool)
        assert sum(map(len, machine.batches)) <= most
        assert found.trials.rows == 256, "so many as the run has"
        assert not most or sizes[machine.batches[0], 0].tolist() == [sizes.max()]
