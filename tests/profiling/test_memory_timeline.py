"""The memory of a pass, call by call, and of batches that were not run."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile

from forwardpass import Model
from forwardpass.building.backends.eager import EagerReplica
from forwardpass.loading import load
from forwardpass.nouns.profiles import Timeline
from forwardpass.nouns.progress import Steps
from forwardpass.profiling.contenders import Contender
from forwardpass.profiling.memory import timeline
from forwardpass.recording.passes import Grad
from tests import models
from tests.models import Function
from tests.untouched import of_module

F32 = 4
FEATURES = "features: f32[batch 16]"
AWKWARD: list[Callable[[], Model]] = [
    models.cnn, models.bilstm, models.bert, models.gpt2_left, models.tied, models.weight_norm,
    models.hooked, models.counter_buffer, models.counter_attribute, models.always_dropout,
    models.train_mode, models.by_position, models.nested_inputs, models.dataclass_output,
    models.none_output, models.dead_head, models.integers, models.strided,
]  # fmt: skip


def remembered(model: Any, rows: int = 16, grad: Grad = "inference") -> Timeline:
    return timeline(Contender.of(load(model), None, 16), rows, grad, Steps())


def computing(contender: Contender) -> nn.Module:
    replica = contender.engine.replicas[0]
    assert isinstance(replica, EagerReplica)
    return replica.module


def function(then: Callable[[Tensor, Tensor], Any]) -> Model:
    return Model(Function(then), FEATURES)


def test_the_peak_of_a_chain_is_what_one_counts_by_hand():
    """Between two layers what came in and what comes out is held, and nothing else."""
    chain = Model(nn.Sequential(nn.Linear(16, 1000), nn.Linear(1000, 300)), FEATURES)
    seen = remembered(chain, rows=8)
    assert seen.live_bytes == (8 * 1000 * F32, 8 * 300 * F32)
    assert seen.peak_bytes == 8 * (1000 + 300) * F32
    assert seen.peak_call == 1
    assert seen.input_bytes == 8 * 16 * F32
    assert seen.parameter_bytes == (16 * 1000 + 1000 + 1000 * 300 + 300) * F32
    assert [(one.name, one.bytes) for one in seen.holders] == [
        ("parameters", seen.parameter_bytes),
        ("0: linear", 8 * 1000 * F32),
        ("1: linear", 8 * 300 * F32),
        ("inputs", 8 * 16 * F32),
    ]


def test_the_peaks_of_larger_batches_are_as_predicted():
    seen = remembered(models.mlp(), rows=16)
    assert [one.rows for one in seen.predictions] == [32, 64]
    assert all(one.predicted_bytes == one.measured_bytes for one in seen.predictions)
    assert seen.slope_bytes == (32 + 32) * F32
    assert seen.why == ""


def test_a_number_for_each_pair_of_rows_is_predicted_as_well():
    seen = remembered(models.similarities(), rows=16)
    assert all(one.predicted_bytes == one.measured_bytes for one in seen.predictions)
    assert seen.most_rows is not None
    assert seen.most_rows < 1 << 20


@pytest.mark.parametrize("make", AWKWARD)
def test_laws(make: Callable[[], Model]):
    """At the end there is what came out; the holders add up to the peak; nothing is held that was
    not held within a call; all is as it was."""
    model = make()
    contender = Contender.of(load(model), None, 16)
    used = computing(contender)
    before = of_module(model.module), of_module(used)
    drawn, threads = torch.random.get_rng_state(), torch.get_num_threads()
    seen = timeline(contender, 4, "inference", Steps())
    assert (of_module(model.module), of_module(used)) == before
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert torch.get_num_threads() == threads
    assert seen.live_bytes, seen.why
    there = seen.parameter_bytes + seen.buffer_bytes + seen.input_bytes
    assert sum(one.bytes for one in seen.holders) == there + seen.peak_bytes
    assert seen.peak_bytes == max(seen.within_bytes) == seen.within_bytes[seen.peak_call]
    for live, within in zip(seen.live_bytes, seen.within_bytes, strict=True):
        assert within >= live
    for one in seen.predictions:
        assert one.measured_bytes is not None
        assert abs(one.predicted_bytes / one.measured_bytes - 1) < 0.1


def test_what_is_held_at_the_end_is_what_came_out():
    seen = remembered(models.dead_head(), rows=8)
    assert seen.live_bytes[-1] == 8 * (4 + 3) * F32


def test_views_and_writes_in_place_add_nothing():
    plain = remembered(function(lambda x, y: y))
    moved = remembered(function(lambda x, y: y.view(-1, 2).T.neg_().relu_().T))
    assert moved.peak_bytes == plain.peak_bytes
    assert set(moved.live_bytes) == {16 * 4 * F32}


def test_a_tied_weight_is_there_once():
    assert remembered(models.tied()).parameter_bytes == 50 * 16 * F32


def test_what_an_operator_takes_for_itself_is_its_scratch():
    """A sort along another axis copies, and gives the copy back."""
    seen = remembered(function(lambda x, y: torch.logsumexp(x, 1)), rows=64)
    assert any(one.name.startswith("scratch of Function: logsumexp") for one in seen.holders)


def test_with_grad_on_more_is_held_until_the_end():
    off, on = remembered(models.mlp()), remembered(models.mlp(), grad="on")
    assert off.saved_bytes is None
    assert on.saved_bytes == (16 * 16 + 16 * 32) * F32
    assert on.live_bytes[-1] == off.live_bytes[-1] + 16 * 32 * F32
    assert [one.predicted_bytes for one in on.predictions] == [
        one.measured_bytes for one in on.predictions
    ]


def test_grad_on_leaves_the_copy_that_computes_as_it_was():
    contender = Contender.of(load(models.mlp()), None, 16)
    before = of_module(computing(contender))
    timeline(contender, 4, "on", Steps())
    assert of_module(computing(contender)) == before


def test_a_batch_that_raises_is_predicted_only():
    seen = remembered(models.memory_bound(16), rows=8)
    assert [(one.rows, one.measured_bytes) for one in seen.predictions] == [(32, None), (64, None)]
    assert all(one.predicted_bytes == one.rows * 4 * F32 for one in seen.predictions)
    assert "a batch of 32 raised" in seen.why
    assert "predicted only" in seen.why


def test_where_small_batches_raise_nothing_is_predicted():
    def picky(x: Tensor, y: Tensor) -> Tensor:
        if len(x) != 3:
            raise ValueError("three rows, please")
        return y

    seen = remembered(function(picky), rows=3)
    assert seen.peak_bytes == 3 * 4 * F32
    assert seen.predictions == ()
    assert "no prediction: a batch of 4 raised ValueError: three rows, please" in seen.why


def test_calls_that_differ_by_the_batch_leave_the_whole_peaks():
    def halved(x: Tensor, y: Tensor) -> Tensor:
        return y * 2 if len(y) < 9 else (y * 2).relu()

    seen = remembered(function(halved), rows=16)
    assert "the calls differ" in seen.why
    assert all(one.measured_bytes for one in seen.predictions)


def test_a_small_batch_that_goes_another_way_is_left_out():
    seen = remembered(function(lambda x, y: y * 2 if len(y) < 5 else (y * 2).relu()), rows=16)
    assert seen.why == ""
    assert all(one.predicted_bytes == one.measured_bytes for one in seen.predictions)


def test_a_module_that_raises_has_no_timeline():
    def stubborn(x: Tensor, y: Tensor) -> Tensor:
        if len(x) == 16:
            raise ValueError("not sixteen")
        return y

    seen = remembered(function(stubborn), rows=16)
    assert seen.live_bytes == ()
    assert "not sixteen" in seen.why


def test_beside_a_profiler_of_the_users_there_is_no_timeline():
    contender = Contender.of(load(models.mlp()), None, 16)
    with profile(profile_memory=True):
        seen = timeline(contender, 4, "inference", Steps())
    assert "another profiler" in seen.why


@pytest.mark.gpu
def test_on_a_gpu_it_is_the_memory_of_the_gpu():
    wide = Model(nn.Sequential(nn.Linear(16, 4096), nn.Linear(4096, 1024)), FEATURES)
    contender = Contender.of(load(wide) @ "eager(device=cuda)", None, 16)
    seen = timeline(contender, 64, "inference", Steps())
    assert seen.peak_bytes == 64 * (4096 + 1024) * F32
    assert seen.resident_bytes is None
    assert all(one.predicted_bytes == one.measured_bytes for one in seen.predictions)


def test_where_an_allocator_tells_nothing_there_is_no_timeline():
    with torch.device("meta"):
        module = nn.Linear(16, 4)
    seen = remembered(Model(module, "x: f32[batch 16]"))
    assert seen.live_bytes == ()
    assert seen.why


def test_a_collate_makes_batches_that_are_followed_and_not_predicted():
    model = Model(
        nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2)),
        collate=lambda items: torch.stack([torch.as_tensor(item["x"]) for item in items]),
        uncollate=lambda out, count: {"y": out},
    )
    contender = Contender.of(load(model), {"x": torch.randn(6, 3)}, 16)
    seen = timeline(contender, 4, "inference", Steps())
    assert seen.live_bytes == (4 * 8 * F32, 4 * 2 * F32)
    assert seen.predictions == ()
    assert "a collate makes batches" in seen.why


def test_what_is_compiled_has_no_timeline():
    compiled = nn.Sequential()
    compiled.add_module(
        "inner", cast("nn.Module", torch.compile(nn.Linear(16, 4), backend="eager"))
    )
    seen = remembered(Model(compiled, FEATURES))
    assert seen.live_bytes == ()
    assert "compiled by torch.compile" in seen.why


def test_a_batch_smaller_than_those_of_the_fit_is_not_predicted():
    """What a batch of one row takes is often less than larger ones tell."""
    seen = remembered(models.cnn(), rows=1)
    assert [one.rows for one in seen.predictions] == [32, 64]


def test_what_another_thread_takes_is_said_to_be_missing():
    def elsewhere(x: Tensor, y: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: x.clone() * 2).result().sum(1) + y.sum(1)

    seen = remembered(function(elsewhere))
    assert "each pass makes it anew, in another thread" in seen.why
    assert "is not counted" in seen.why
    assert seen.predictions == ()


def test_what_is_sparse_is_counted_with_grad_on():
    def gathered(x: Tensor, y: Tensor) -> Tensor:
        return (x > 0).float().T.to_sparse() @ y

    seen = remembered(function(gathered), grad="on")
    assert seen.saved_bytes is not None
    assert seen.saved_bytes > 0


def test_nothing_is_said_on_stderr(capfd: pytest.CaptureFixture[str]):
    remembered(models.mlp(), rows=2)
    assert capfd.readouterr() == ("", "")


def test_every_step_is_counted():
    contender, steps = Contender.of(load(models.mlp()), None, 16), Steps()
    timeline(contender, 16, "inference", steps)
    assert (steps.stage, steps.done) == ("memory", steps.total)
