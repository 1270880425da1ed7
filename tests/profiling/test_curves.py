"""Curves: what each batch takes, which one is best, and what ends the search; on real models."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass import Model
from forwardpass.errors import PassError, UsageError
from forwardpass.loading import load
from forwardpass.measuring.clocks import Clock
from forwardpass.nouns.profiles import Curve
from forwardpass.nouns.progress import Steps
from forwardpass.profiling import curves
from forwardpass.profiling.contenders import Contender
from forwardpass.profiling.curves import Sweep, begun, noise_of, require_possible, sweep
from forwardpass.profiling.ladders import PLATEAU
from forwardpass.profiling.points import Point
from tests.models import mlp


def swept(*forwards: Any, inputs: Any = None, **said: Any) -> list[Sweep]:
    contenders = [Contender.of(load(one), inputs, 64) for one in forwards]
    asked: dict[str, Any] = {
        "noise": 0.02, "axes": {}, "threads": (), "latency_seconds": None, "budget_seconds": 0.3,
        "steps": Steps(),
    }  # fmt: skip
    batch, asked = said.pop("batch", None), {**asked, **said}
    require_possible(contenders, batch or (), asked["axes"], asked["threads"])
    ladders = begun(contenders, batch, Steps())
    found = sweep(ladders, **asked)
    for ladder in ladders:
        ladder.keep()
    return found


def along(found: Sweep, name: str) -> Curve:
    return next(curve for curve in found.curves if curve.along == name)


def rows(curve: Curve) -> list[int]:
    return [point.rows for point in curve.points]


class Rows(nn.Module):
    """A linear layer; `then` sees the batch before it."""

    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.then(x))


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Moves the clocks, which stand else: what is found is the same on a busy machine."""
    wall = cpu = 0.0

    def move(seconds: float, cpu_seconds: float | None = None) -> None:
        nonlocal wall, cpu
        wall += seconds
        cpu += seconds if cpu_seconds is None else cpu_seconds

    clock = Clock(now=lambda: wall, cpu=lambda: cpu)
    monkeypatch.setattr(curves, "WALL", clock)
    monkeypatch.setattr(Contender, "clock", clock)
    return move


def model(then: Callable[[Tensor], Tensor]) -> Model:
    return Model(Rows(then), "x: f32[batch 8]")


class Tokens(nn.Module):
    """An embedding, a mask and a sum: rows may be padded; `mean` over the padding, and they may
    not."""

    def __init__(self, masked: bool = True) -> None:
        super().__init__()
        self.table, self.head, self.masked = nn.Embedding(50, 16), nn.Linear(16, 3), masked

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.table(ids)
        if self.masked:
            x = x * mask[..., None]
        return self.head(x.sum(1))


TOKENS = ["ids: i64[batch tokens=1..64] pad 0", "mask: bool[batch tokens] = valid(tokens)"]


def sentences(count: int, seed: int = 0) -> dict[str, list[np.ndarray[Any, Any]]]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(4, 41, count)
    return {"ids": [generator.integers(1, 50, length) for length in lengths]}


def test_rows_double_until_larger_batches_gain_nothing_and_the_best_is_among_them() -> None:
    (found,) = swept(mlp())
    curve = along(found, "batch")
    doubled = [2**n for n in range(20) if 2**n <= rows(curve)[-1]]
    assert set(doubled) <= set(rows(curve))
    assert curve.ended
    for point in curve.points:
        took = point.seconds
        assert 0 < took.low <= took.median <= took.high
        assert point.p50 <= point.p95 <= point.p99
        assert point.threads == 1
        assert point.rounds >= 3
        assert point.peak_bytes is not None
    (advice,) = found.advice
    assert advice.goal == "throughput"
    assert advice.rows in rows(curve)
    assert "rows/s" in advice.why
    surely = max(p.rows_per_second.low for p in curve.points)
    chosen = next(p for p in curve.points if p.rows == advice.rows)
    assert chosen.rows > 1, "an MLP of 16 features gains by batches anywhere"
    assert chosen.rows_per_second.high >= surely or "by CPU seconds" in advice.why
    assert found.costs.seconds(advice.rows, 1) > 0


def test_batches_between_are_tried_once_no_doubled_one_is_left_to_try() -> None:
    """Rows cost the same up to 12, and twice as much beyond: no power of two is the best."""

    def stepping(x: Tensor) -> Tensor:
        sleep(2e-4 * (1 if len(x) <= 12 else len(x) / 4))
        return x

    (found,) = swept(model(stepping), budget_seconds=2.0)
    assert {1, 2, 4, 8, 12, 16} <= set(rows(along(found, "batch")))
    assert found.advice[0].rows == 12
    assert "larger batches have fewer" in found.advice[0].why


def test_a_batch_between_that_raises_is_noted_and_ends_nothing() -> None:
    def even(x: Tensor) -> Tensor:
        if len(x) & (len(x) - 1):
            raise ValueError("powers of two alone")
        sleep(2e-4 * (1 if len(x) <= 8 else len(x)))
        return x

    (found,) = swept(model(even), budget_seconds=2.0)
    assert found.advice[0].rows == 8
    assert along(found, "batch").ended.startswith(PLATEAU)
    assert any("at 12 rows forward raised: ValueError: powers of two" in n for n in found.notes)


def test_batches_that_are_asked_for_are_timed_and_no_others() -> None:
    (found,) = swept(mlp(), batch=[12, 1, 3])
    assert rows(along(found, "batch")) == [1, 3, 12]
    assert along(found, "batch").ended == "these batches were asked for"
    assert found.costs.row_counts == (1, 3, 12)


def test_several_forwards_share_their_rounds() -> None:
    one, other = swept(mlp(), load(mlp()), batch=[1, 4])
    assert [p.rounds for p in along(one, "batch").points] == [
        p.rounds for p in along(other, "batch").points
    ]


def test_a_batch_that_does_not_fit_ends_the_curve_and_not_the_profile() -> None:
    def small(x: Tensor) -> Tensor:
        if len(x) > 8:
            raise MemoryError("not so many")
        return x

    (found,) = swept(model(small))
    assert rows(along(found, "batch"))[-1] <= 8
    (found,) = swept(model(small), batch=[1, 8, 16, 32])
    curve = along(found, "batch")
    assert rows(curve) == [1, 8]
    assert "16 rows do not fit into memory" in curve.ended


def test_a_batch_that_raises_ends_the_curve_and_says_what_was_raised() -> None:
    def picky(x: Tensor) -> Tensor:
        if len(x) > 4:
            raise ValueError("four at most")
        return x

    (found,) = swept(model(picky), batch=[2, 4, 6])
    assert rows(along(found, "batch")) == [2, 4]
    assert "at 6 rows forward raised: ValueError: four at most" in along(found, "batch").ended

    def never(x: Tensor) -> Tensor:
        raise ValueError("no")

    with pytest.raises(PassError, match="ValueError: no"):
        swept(model(never))
    with pytest.raises(PassError, match="one row raised: ValueError: no"):
        noise_of(Contender.of(load(model(never)), None, 8))


def test_outputs_that_are_wrong_at_a_batch_size_are_told() -> None:
    def mixing(x: Tensor) -> Tensor:
        return x + x.mean(0) if len(x) >= 8 else x

    (found,) = swept(model(mixing), batch=[1, 4, 8, 16])
    (note,) = (note for note in found.notes if "differ" in note)
    assert note.startswith("at 8 and 16 rows")
    assert "batch-variance" in note
    (found,) = swept(mlp(), batch=[1, 4, 8, 16])
    assert not any("differ" in note for note in found.notes)


def test_a_last_row_that_is_wrong_is_seen_too() -> None:
    found, = swept(model(lambda x: torch.cat([x[:-1], 0 * x[-1:]]) if len(x) > 3 else x),
                   batch=[2, 4])  # fmt: skip
    assert any(note.startswith("at 4 rows") for note in found.notes)


def test_outputs_that_are_random_are_not_called_wrong() -> None:
    (found,) = swept(model(lambda x: x + torch.randn_like(x)), batch=[1, 4])
    (note,) = (note for note in found.notes if "call to call" in note)
    assert "not compared" in note


def test_a_model_that_writes_into_its_inputs_computes_on_the_same_numbers() -> None:
    contender = Contender.of(load(model(lambda x: x.mul_(2))), {"x": torch.ones(3, 8)}, 8)
    call = contender.call(2)
    first = call()["output"].clone()
    for _ in range(3):
        assert torch.equal(call()["output"], first)

    collating = Model(
        Rows(lambda x: x.mul_(2)),
        collate=lambda items: torch.stack([torch.as_tensor(item["x"]) for item in items]),
        uncollate=lambda out, count: {"y": out},
    )
    call = Contender.of(load(collating), {"x": np.ones((3, 8), np.float32)}, 8).call(2)
    first = call().clone()
    for _ in range(3):
        assert torch.equal(call(), first)


def test_axes_are_timed_as_asked_and_by_themselves() -> None:
    network = Model(Tokens(), TOKENS)
    (found,) = swept(network, inputs=sentences(20), axes={"tokens": [8, 32]}, batch=[1, 2])
    curve = along(found, "tokens")
    assert [p.sizes["tokens"] for p in curve.points] == [8, 32]
    assert rows(curve) == [2, 2]
    assert [p.cells for p in curve.points] == [8, 32]
    (found,) = swept(network, inputs=sentences(20))
    sizes = [p.sizes["tokens"] for p in along(found, "tokens").points]
    assert sizes == sorted(set(sizes))
    assert 2 <= len(sizes) <= 4
    assert all(4 <= size <= 40 for size in sizes), "between the shortest and the longest row"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"axes": {"token": [8]}}, "tokens"),
        ({"axes": {"tokens": [65]}}, "tokens=1..64"),
        ({"axes": {"tokens": [0]}}, "out of bounds"),
        ({"batch": [0]}, "batch"),
        ({"threads": [-1]}, "threads"),
    ],
)
def test_what_cannot_be_timed_is_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        swept(Model(Tokens(), TOKENS), inputs=sentences(4), **said)
    with pytest.raises(UsageError, match="no variable axis"):
        swept(mlp(), axes={"tokens": [8]})


def test_thread_counts_are_timed_and_put_back(two_threads: int) -> None:
    (found,) = swept(mlp(), threads=[1, 2], batch=[4], budget_seconds=2.0)
    assert [p.threads for p in along(found, "threads").points] == [1, 2]
    assert torch.get_num_threads() == two_threads

    def stop(x: Tensor) -> Tensor:
        if len(x) > 1:
            raise KeyboardInterrupt
        return x

    with pytest.raises(KeyboardInterrupt):
        swept(model(stop), threads=[1])
    assert torch.get_num_threads() == two_threads


def test_a_latency_bound_has_its_own_advice() -> None:
    (found,) = swept(mlp(), latency_seconds=10.0, batch=[1, 2, 4])
    _, advice = found.advice
    assert advice.goal == "latency <= 10 s"
    assert advice.rows in (1, 2, 4)
    (found,) = swept(mlp(), latency_seconds=1e-9, batch=[1, 2])
    _, advice = found.advice
    assert advice.rows == 0
    assert "none keeps it" in advice.why


def test_a_run_begins_with_what_a_profile_timed(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path))
    network = Model(Tokens(), TOKENS)
    (found,) = swept(network, inputs=sentences(40), budget_seconds=1.5)
    kept = list(tmp_path.glob("trials-*.json"))
    assert len(kept) == 1

    from forwardpass.preparing import sizing

    begun: list[Any] = []
    before = sizing.remembered

    def seen(*arguments: Any) -> Any:
        begun.append(before(*arguments))
        return begun[-1]

    monkeypatch.setattr(sizing, "remembered", seen)
    outputs, report = fwd.run(network, sentences(200, seed=1))
    assert begun[0] is not None, "the same device, plan, signature and weights"
    assert begun[0].table() == found.costs
    assert report.rows == 200
    assert len(outputs["output"]) == 200
    torch.manual_seed(1)
    begun.clear()
    fwd.run(Model(Tokens(), TOKENS), sentences(20))
    assert begun[0] is None, "other weights"


def test_without_a_signature_the_run_finds_them_all_the_same(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path))
    bare = nn.Linear(8, 4)
    data = {"input": np.ones((32, 8), np.float32)}
    swept(bare, inputs=data)
    kept = {path.name for path in tmp_path.glob("trials-*.json")}
    assert len(kept) == 1
    fwd.run(bare, data)
    assert {path.name for path in tmp_path.glob("trials-*.json")} == kept


def test_batches_of_a_collate_are_timed() -> None:
    collating = Model(
        Rows(lambda x: x),
        collate=lambda items: torch.stack([torch.as_tensor(item["x"]) for item in items]),
        uncollate=lambda out, count: {"y": out},
    )
    (found,) = swept(collating, inputs={"x": np.ones((5, 8), np.float32)})
    assert len(along(found, "batch").points) > 1
    assert not any("differ" in note for note in found.notes)


def test_a_single_row_is_enough() -> None:
    (found,) = swept(mlp(), inputs={"features": np.ones((1, 16), np.float32)})
    assert len(along(found, "batch").points) > 1


class Standing(Contender):
    """Its CPU clock stands still every other time that it is asked."""

    @property
    def clock(self) -> Clock:
        ticks = iter(range(1, 1_000_000))
        return Clock(cpu=lambda: next(ticks) // 4 * 1e-4)


def test_a_cpu_clock_that_stands_for_a_while_is_not_believed() -> None:
    found = Contender.of(load(mlp()), None, 8)
    point = Point(Standing(found.load, found.engine, found.sha256), 1, threads=1)
    point.try_again()
    for number in range(3):
        point.take_turn(number, 0.002)
    assert point.quickest > 0
    assert all(sum(t.seconds for t in took) < 1 for took in point.rounds.values())


def test_the_budget_is_kept_and_said() -> None:
    import time

    def slow(x: Tensor) -> Tensor:
        time.sleep(0.01 * len(x))
        return x

    (found,) = swept(model(slow), budget_seconds=0.1)
    assert "larger ones were not tried: the budget" in found.advice[0].why
    assert "the budget" in along(found, "batch").ended
    assert any("budget" in note for note in found.notes)


def test_noise_is_a_share() -> None:
    assert 0 <= noise_of(Contender.of(load(mlp()), None, 8)) < 10


def test_memory_that_runs_out_for_real_ends_the_curve() -> None:
    program = """
import json, resource, sys, torch
from torch import nn
from tests.profiling.test_curves import along, swept
from forwardpass import Model

class Large(nn.Module):
    def forward(self, x):
        return (x[:, :, None] * torch.ones(1, 1, 1 << 20)).sum(-1)  # 8 MB a row

model = Model(Large(), "x: f32[batch 2]")
swept(model, batch=[1])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
found, = swept(model, batch=[1, 64], budget_seconds=5)
curve = along(found, "batch")
print(json.dumps([[p.rows for p in curve.points], curve.ended]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    counts, ended = json.loads(done.stdout)
    assert counts == [1]
    assert "64 rows do not fit into memory" in ended


def test_advice_says_when_larger_batches_were_not_tried(moved: Callable[..., None]) -> None:
    def one_answer(x: Tensor) -> Tensor:
        moved(0.02)
        return x

    (found,) = swept(model(one_answer), batch=[1, 2])
    (advice,) = found.advice
    assert advice.rows == 2
    assert "larger ones were not tried: these batches were asked for" in advice.why


def test_artefacts_and_their_own_threads(tmp_path: Any) -> None:
    pytest.importorskip("onnxruntime")
    fwd.export(fwd.Forward(mlp(), fwd.Plan.parse("@ onnxruntime")), tmp_path / "mlp.fwd")
    (found,) = swept(str(tmp_path / "mlp.fwd"), threads=[1, 2], batch=[1, 4])
    assert [p.threads for p in along(found, "threads").points] == [1, 2]
    assert rows(along(found, "batch")) == [1, 4]
    assert not any("differ" in note for note in found.notes)


def test_a_model_that_refuses_one_row_is_timed_with_more() -> None:
    def several(x: Tensor) -> Tensor:
        if len(x) < 2:
            raise ValueError("several")
        return x

    (found,) = swept(model(several), batch=[4, 8])
    assert rows(along(found, "batch")) == [4, 8]
    assert any("one row alone raised ValueError: several" in note for note in found.notes)


def test_labels_that_tip_over_by_rounding_are_not_called_wrong() -> None:
    class Labels(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            score = x.sum(1, keepdim=True) + 1e-7 * len(x)
            return score, (score > 8).long()

    network = Model(Labels(), "x: f32[batch 8]")
    (found,) = swept(network, inputs={"x": np.ones((4, 8), np.float32)}, batch=[1, 16])
    assert not any("differ" in note for note in found.notes)


def test_a_bound_between_two_batches_is_met_by_one_between_them(
    moved: Callable[..., None],
) -> None:
    def slow(x: Tensor) -> Tensor:
        moved(6e-3 + 0.5e-3 * len(x))
        return x

    (found,) = swept(model(slow), latency_seconds=0.0132, budget_seconds=3.0)
    _, advice = found.advice
    counts = rows(along(found, "batch"))
    assert advice.rows in counts
    assert advice.rows == 14  # 13 ms; 8 take 10, 16 take 14


def test_a_model_that_waits_is_timed_by_the_wall_clock(moved: Callable[..., None]) -> None:
    import time

    def fetching(x: Tensor) -> Tensor:
        time.sleep(1e-4)  # its core goes to others
        moved(5e-3 if len(x) <= 4 else 2e-3 * len(x), cpu_seconds=1e-5)
        return x

    (found,) = swept(model(fetching), budget_seconds=1.0)
    (advice,) = found.advice
    assert advice.rows == 4
    assert "too noisy" not in advice.why


def test_what_is_compiled_anew_for_each_size_ends_by_the_budget() -> None:
    import time

    seen: set[int] = set()

    def compiling(x: Tensor) -> Tensor:
        if len(x) not in seen:
            seen.add(len(x))
            time.sleep(0.3)
        return x

    (found,) = swept(model(compiling), budget_seconds=2.0)
    assert rows(along(found, "batch")) == [1, 2]
    assert "the budget" in along(found, "batch").ended
