"""What batches cost from one row on: by a clock of ours, each length by itself, within the time."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from forwardpass.executing.batches import Batch, Result
from forwardpass.measuring.machines import machine
from forwardpass.nouns.costs import CostTable
from forwardpass.nouns.signatures import Signature
from forwardpass.preparing import laddering
from forwardpass.preparing.laddering import laddered, warmed
from forwardpass.preparing.padding import UNTRIED
from forwardpass.preparing.recipes import Ready
from forwardpass.tensors.blocks import Block

IDS = Signature.parse("ids: i64[batch tokens=1..512] pad 0")


class Clocked:
    """An executor that takes as long as it is said to, of a clock that it moves itself."""

    workers, shards = 0, 1

    def __init__(self, base: float, cell: float, fits: int = 1 << 40) -> None:
        self.base, self.cell, self.fits = base, cell, fits
        self.time = 0.0
        self.batches: list[tuple[int, int]] = []

    def now(self) -> float:
        return self.time

    def submit(self, batch: Batch) -> Future[Result]:
        cells = len(batch) * batch.cells
        self.time += self.base + self.cell * cells
        self.batches.append((len(batch), batch.cells))
        done: Future[Result] = Future()
        whole = ((0, len(batch), {}),)
        halves = ((0, 1, {}), (1, len(batch), {}))
        done.set_result(Result(whole if cells <= self.fits else halves))
        return done

    def verify(self) -> None: ...
    def close(self) -> None: ...


def rows(*lengths: int) -> Block:
    sizes = np.array(lengths, np.int64).reshape(-1, 1)
    return Block(IDS, {"ids": [np.ones(n, np.int64) for n in lengths]}, sizes, sizes)


def known() -> Ready:
    return Ready(
        plan="@ eager", origin=None, sha256="0", inputs=tuple(map(str, IDS.inputs)), outputs=(),
        padding=UNTRIED, costs=CostTable(()), machine=machine(), device="cpu",
    )  # fmt: skip


def costs(
    computes: Clocked,
    block: Block,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float = 10.0,
    **more: Any,
) -> CostTable:
    class Moved:
        now = staticmethod(computes.now)

    monkeypatch.setattr(laddering, "WALL", Moved)
    return laddered(known(), computes, block, {"test": id(computes), **more}, seconds)


def test_it_begins_with_one_row_and_ends_where_larger_batches_gain_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = costs(Clocked(1e-3, 1e-5), rows(10), monkeypatch)
    counts = [point.rows for point in table.points]
    assert counts[:4] == [1, 2, 4, 8]
    assert table.seconds(1, 10) == pytest.approx(1.1e-3)
    assert table.seconds(64, 10) == pytest.approx(1e-3 + 64e-4)
    assert counts[-1] < 8192  # a row costs 1e-4 at best: 1 % more is no gain


def test_lengths_are_spread_from_the_shortest_to_the_longest_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = costs(Clocked(1e-4, 1e-5), rows(*range(2, 400)), monkeypatch)
    lengths = sorted({point.cells for point in table.points})
    assert (lengths[0], lengths[-1]) == (2, 399)
    assert len(lengths) == 5
    assert table.seconds(3, 100) == pytest.approx(1e-4 + 3e-3, rel=0.05)


def test_time_that_is_spent_ends_it_and_of_each_length_one_row_is_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computes = Clocked(1.0, 1e-3)
    table = costs(computes, rows(2, 20, 200), monkeypatch, seconds=3.0)
    assert {(p.rows, p.cells) for p in table.points} == {(1, 2), (1, 20), (1, 200)}
    assert costs(computes, rows(2, 20, 200), monkeypatch, seconds=60.0) != table


def test_what_did_not_fit_is_no_point_and_nothing_as_large_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computes = Clocked(1e-3, 1e-6, fits=100)
    table = costs(computes, rows(10, 30), monkeypatch)
    assert max(p.rows * p.cells for p in table.points) <= 100
    assert all(len_ * cells <= 2 * 120 for len_, cells in computes.batches)


def test_what_was_found_is_looked_up_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Clocked(1e-3, 1e-5), Clocked(1e-3, 1e-5)
    table = costs(first, rows(10, 20), monkeypatch, test="same")
    assert costs(second, rows(10, 20), monkeypatch, test="same") == table
    assert not second.batches
    assert costs(second, rows(10, 21), monkeypatch, test="same") != table


def test_warming_computes_the_cheapest_first_as_long_as_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = costs(Clocked(1e-3, 1e-5), rows(10, 20), monkeypatch)
    computes = Clocked(1e-3, 1e-5)
    warmed(table, known(), computes, rows(10, 20), 0.01)
    assert computes.batches[0] == (1, 10)
    assert (1, 20) in computes.batches
    assert computes.time < 0.02
