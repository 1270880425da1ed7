"""Calibration: the ladder climbs while rows gain, and ends at time, memory and budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from forwardpass.measuring.clocks import Clock
from forwardpass.nouns.signatures import Axis
from forwardpass.preparing.calibrating import Calibration, calibrate, representative

TOKENS = Axis("tokens", low=1, high=256)
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path))


def tokens(sizes: Mapping[str, int]) -> int:
    return sizes.get("tokens", 1)


class Timed:
    """A batch that takes as long as `seconds` says, on a clock that only it moves."""

    def __init__(self, seconds: Callable[[int, int], float]) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.calls: list[tuple[int, int]] = []

    def __call__(self, rows: int, sizes: dict[str, int]) -> None:
        self.calls.append((rows, tokens(sizes)))
        self.now += self.seconds(rows, tokens(sizes))


def calibrated(
    compute: Callable[[int, dict[str, int]], None],
    shapes: list[dict[str, int]] | None = None,
    model: str = "a",
    budget_seconds: float = 2.0,
    **options: Any,
) -> Calibration:
    return calibrate(
        compute,
        shapes or [{}],
        tokens,
        device="cpu",
        identity={"model": model},
        budget_seconds=lambda: budget_seconds,
        **({"clock": Clock(lambda: compute.now)} if isinstance(compute, Timed) else {}),
        **options,
    )


def rows_of(calibration: Calibration, size: int | None = None) -> list[int]:
    points = calibration.table.points
    return [p.rows for p in points if size is None or p.sizes == {"tokens": size}]


def test_rows_double_until_they_gain_nothing_and_the_best_is_refined() -> None:
    batch = Timed(lambda rows, _: 1e-4 + 1e-5 * max(rows, 20))
    found = calibrated(batch)
    assert rows_of(found) == sorted(rows_of(found))
    assert rows_of(found)[:6] == [1, 2, 4, 8, 16, 32]
    best = min(found.table.points, key=lambda p: p.seconds / p.rows).rows
    assert {best // 2, best} <= set(rows_of(found))
    assert max(rows_of(found)) <= 4_096
    assert found.seconds == pytest.approx(batch.now)
    assert not found.cached
    for point in found.table.points:
        assert point.seconds == pytest.approx(batch.seconds(point.rows, 1))


def test_a_cliff_ends_the_ladder_and_the_count_below_it_is_the_best() -> None:
    batch = Timed(lambda rows, _: 1e-4 + (1e-6 if rows <= 200 else 3e-6) * rows)
    found = calibrated(batch)
    best = min(found.table.points, key=lambda p: p.seconds / p.rows).rows
    assert best == 192
    assert max(rows_of(found)) == 1_024, "three counts in a row gained nothing"


def test_a_busy_moment_is_measured_again() -> None:
    busy = {(16, 1): 2}

    def seconds(rows: int, size: int) -> float:
        left = busy.get((rows, size), 0)
        busy[rows, size] = left - 1
        return (0.001 + 0.005 * rows) * (3 if left > 0 else 1)

    found = calibrated(Timed(seconds), budget_seconds=10.0)
    at = {point.rows: point.seconds for point in found.table.points}
    assert at[16] == pytest.approx(0.081)


def test_the_budget_is_shared_and_one_row_of_each_shape_is_always_measured() -> None:
    batch = Timed(lambda rows, size: 0.01 + 1e-4 * rows * size)
    shapes = [{"tokens": size} for size in (256, 16, 64)]
    found = calibrated(batch, shapes, budget_seconds=0.0)
    assert [(p.rows, p.sizes["tokens"]) for p in found.table.points] == [(1, 16), (1, 64), (1, 256)]

    batch.now = 0.0
    found = calibrated(batch, shapes, model="b")
    assert found.seconds < 2.5
    assert all(len(rows_of(found, size)) >= 3 for size in (16, 64, 256))


def test_the_other_shapes_stop_where_the_middle_one_found_the_best() -> None:
    def seconds(rows: int, size: int) -> float:
        return 1e-3 + 1e-5 * rows * size * (1 if rows * size <= 1_024 else 3)

    batch = Timed(seconds)
    found = calibrated(batch, [{"tokens": size} for size in (16, 64, 256)], budget_seconds=60.0)
    assert batch.calls[0] == (1, 64), "the middle shape leads"
    assert max(rows_of(found, 64)) > 1_024 // 64
    assert max(rows_of(found, 16)) == 1_024 // 16
    assert max(rows_of(found, 256)) == 1_024 // 256


def test_a_large_batch_is_not_worse_for_one_busy_moment() -> None:
    seen: list[int] = []

    def seconds(rows: int, size: int) -> float:
        seen.append(rows)
        return (0.01 + 0.01 * rows) * (1.4 if rows == 8 else 1)  # whenever it is timed

    found = calibrated(Timed(seconds), budget_seconds=0.5)
    at = {point.rows: point.seconds / point.rows for point in found.table.points}
    assert 0 < seen.count(8) < 6
    best = min(at[rows] for rows in at if rows < 8)
    assert 0.97 * best < at[8] < best, "slightly better, as larger batches are"
    found = calibrated(Timed(seconds), model="b", budget_seconds=60.0)
    at = {point.rows: point.seconds / point.rows for point in found.table.points}
    assert at[8] == pytest.approx(0.09 * 1.4 / 8), "timed often, it is believed"


def test_no_batch_is_much_longer_than_half_a_second() -> None:
    batch = Timed(lambda rows, _: 0.9 + 0.05 * rows)
    assert rows_of(calibrated(batch, budget_seconds=60.0)) == [1, 2]


def test_rows_and_memory_are_bounded() -> None:
    def compute(rows: int, sizes: dict[str, int]) -> None:
        time.sleep(0.001)
        held = np.ones(rows * 4 * MIB, dtype=np.uint8)
        del held

    assert max(rows_of(calibrated(compute, max_rows=4, budget_seconds=5.0))) == 4
    bounded = calibrated(compute, max_bytes=100 * MIB, budget_seconds=5.0)
    assert max(rows_of(bounded)) <= 32


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_ends_the_rows_of_a_shape(error: Exception) -> None:
    def compute(rows: int, sizes: dict[str, int]) -> None:
        if rows * sizes["tokens"] > 64:
            raise error
        time.sleep(1e-4)

    found = calibrated(compute, [{"tokens": 16}, {"tokens": 128}])
    assert max(rows_of(found, 16)) <= 4
    assert rows_of(found, 128) == []
    assert found.table.ceiling(16) == max(rows_of(found, 16))
    with pytest.raises(type(error)):
        calibrated(compute, [{"tokens": 128}], model="huge")


def test_other_errors_are_the_models_own() -> None:
    def compute(rows: int, sizes: dict[str, int]) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        calibrated(compute)


def test_what_was_measured_is_reused_and_only_what_is_missing_is_measured() -> None:
    batch = Timed(lambda rows, size: 1e-4 + 1e-5 * rows * size)
    first = calibrated(batch, [{"tokens": 16}], max_rows=8)
    batch.calls.clear()
    again = calibrated(batch, [{"tokens": 16}], max_rows=8)
    assert again == Calibration(first.table, 0.0, True)
    assert batch.calls == []
    more = calibrated(batch, [{"tokens": 16}, {"tokens": 64}], max_rows=8)
    assert {size for _, size in batch.calls} == {64}
    assert not more.cached
    assert more.table.points[: len(first.table.points)] == first.table.points
    assert calibrated(batch, [{"tokens": 64}], max_rows=8).cached


def test_a_small_network_is_calibrated_within_the_budget() -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)).eval()

    def compute(rows: int, sizes: dict[str, int]) -> None:
        with torch.inference_mode():
            network(torch.zeros(rows, 1, 8, 8))

    found = calibrated(compute, clock=Clock(time.process_time))
    assert len(found.table.points) >= 4
    assert found.seconds < 10.0
    assert 1 < found.table.ceiling(1) <= 8_192


@given(st.lists(st.integers(1, 256), min_size=1, max_size=200).map(lambda v: np.array(v)[:, None]))
def test_few_shapes_stand_for_the_rows_and_the_last_covers_all(sizes: np.ndarray) -> None:
    shapes = representative(sizes, (TOKENS,))
    assert 1 <= len(shapes) <= 4
    assert len({shape["tokens"] for shape in shapes}) == len(shapes)
    assert shapes[-1]["tokens"] == sizes.max()
    assert all(TOKENS.low <= shape["tokens"] <= 256 for shape in shapes)


def test_shapes_are_powers_of_two_within_the_bounds_of_their_axes() -> None:
    sizes = np.array([[5], [9], [60], [70], [200]])
    assert representative(sizes, (Axis("tokens", low=1, high=200),)) == [
        {"tokens": size} for size in (8, 64, 128, 200)
    ]
    image = (Axis("height", low=32, high=1000, multiple=48), Axis("width"))
    found = representative(np.array([[48, 10], [960, 20], [96, 300]]), image)
    assert found[-1] == {"height": 960, "width": 300}, "never beyond what the data have"
    assert all(shape["height"] % 48 == 0 for shape in found)


def test_without_variable_axes_or_rows_there_is_one_shape() -> None:
    assert representative(np.zeros((10, 0), dtype=np.int64), ()) == [{}]
    assert representative(np.zeros((0, 1), dtype=np.int64), (TOKENS,)) == [{"tokens": 1}]
