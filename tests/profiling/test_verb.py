"""What a profile says of the machine and the clock."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass.errors import UsageError
from forwardpass.loading import load as loaded
from forwardpass.profiling import verb
from forwardpass.profiling.allowances import Allowance, Found
from forwardpass.profiling.contenders import Contender
from forwardpass.showing.notebook import html


class Lost:
    def __init__(self, share: float) -> None:
        self.share = share


@pytest.mark.parametrize(("share", "said"), [(0.4, ["for 40% of their time"]), (0.01, [])])
def test_other_work_on_the_cores_is_noted(
    share: float, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "Contention", lambda: Lost(share))
    found = fwd.profile(nn.Linear(4, 2), torch.ones(3, 4), batch=(1,), budget_seconds=0.2)
    assert [note[:21] for note in found.notes if "no core" in note] == said
    assert found.lost_share == share
    assert found.limits.matmul_flops_per_second["f32"] > 0


def test_rows_that_are_left_out_are_noted_and_the_fastest_is_told_by_what_is_printed() -> None:
    rows = [{"x": [1.0, 2.0]}, {"x": None}, {"x": [1.0]}]
    model = fwd.Model(nn.Linear(2, 2), "x: f32[batch 2]")
    found = fwd.profile([model, model], rows, batch=(1,), budget_seconds=0.2)
    assert found.notes[0].startswith(
        "2 of 3 rows could not be encoded and were left out; the first"
    )
    one, other = (done.curves[0].points[0].rows_per_second for done in found.passes)
    if one.overlaps(other):
        assert "too close to call" in found.verdict


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"budget_seconds": float("nan")}, "nan is no number of seconds"),
        ({"budget_seconds": -1}, "-1 is no number of seconds"),
        ({"budget_seconds": "5"}, "'5' is no number of seconds"),
        ({"latency_seconds": float("inf")}, "latency_seconds=…"),
        ({"batch": 4}, "4 is no list of whole numbers"),
        ({"axes": {"tokens": 4}}, "axes: tokens"),
        ({"grad": "yes"}, "inference"),
        ({"limit": 0}, "limit=…"),
        ({"batch": [10**12]}, "1,000,000,000,000 rows of Linear @ eager are 16,000.0 GB"),
        ({"forward": []}, "an empty list"),
    ],
)
def test_arguments_of_another_kind_are_refused(said: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"forward": nn.Linear(4, 2), **said}
    with pytest.raises(UsageError, match=message):
        fwd.profile(asked.pop("forward"), torch.ones(3, 4), **asked)


def test_a_module_and_its_tensor_in_bfloat16() -> None:
    model = nn.Linear(4, 2).bfloat16()
    found = fwd.profile(model, torch.randn(3, 4).bfloat16(), batch=(2,), budget_seconds=0.1)
    assert {call.dtype for call in found.passes[0].parts[0].calls} == {"bf16"}


def test_a_pass_that_calls_nothing_takes_nothing() -> None:
    found = fwd.profile(nn.Identity(), torch.ones(3, 4), budget_seconds=0.1)
    memory = found.passes[0].memory
    assert memory is not None
    assert memory.peak_bytes == 0
    assert all(each.predicted_bytes == 0 for each in memory.predictions)


class Slow(nn.Module):
    """Computes for so long a row, by the clock; counts its passes."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.first, self.second, self.seconds = nn.Linear(8, 8), nn.Linear(8, 4), seconds

    def forward(self, x: Tensor) -> Tensor:
        PASSES.append(len(x))
        x, began = self.first(x), time.perf_counter()
        while time.perf_counter() - began < self.seconds * len(x):
            pass
        return self.second(x)


PASSES: list[int] = []


def test_a_slow_pass_is_timed_and_taken_apart_once_and_what_is_left_out_is_said() -> None:
    PASSES.clear()
    found = fwd.profile(Slow(0.25), torch.ones(6, 8), budget_seconds=0.5)
    assert len(PASSES) == sum(PASSES) <= 10, "a few passes of one row"
    (one,) = found.passes
    (parts,) = one.parts
    assert {layer.path for layer in parts.layers} == {"first", "second"}
    assert all(layer.seconds.low < layer.seconds.high for layer in parts.layers)
    assert one.curves[0].points[0].rounds == 2
    assert (one.memory, one.lesson) == (None, None)
    (note,) = (note for note in found.notes if "left out" in note)
    for missing in ("noise", "more than once", "memory", "other batches", "what batching buys"):
        assert missing in note
    assert found.noise > 0
    assert str(found)
    assert fwd.Profile.from_json(found.to_json()) == found


def test_what_is_worth_more_is_had_first_and_the_seconds_that_are_named_have_it() -> None:
    passes = [0.1]
    every = ORDER
    had: list[int] = []
    for seconds in (0.1, 2.2, 3.4, 4.2, 6.2, 12.0):
        one = Allowance(seconds, 0.0, passes, every)
        had.append(sum(one.has(name) for name in every))
        named = [float(each) for note in one.notes for each in re.findall(r"\(([\d.]+) s\)", note)]
        for number, enough in enumerate(named):
            assert Allowance(enough, 0.0, passes, every).has(
                ORDER[len(ORDER) - len(named) + number]
            )
        assert sum(one.seconds(name) for name in every) <= max(seconds, 0.9) + 1e-9
    assert had == sorted(had)
    assert had[0] == 2
    assert had[-1] == len(every)
    assert not list(Allowance(30.0, 0.0, passes, every).notes)


ORDER: list[Found] = ["whole", "layers", "noise", "rounds", "memory", "curves", "lesson"]


def test_batches_that_are_asked_for_have_seconds_of_their_own() -> None:
    PASSES.clear()
    found = fwd.profile(Slow(0.02), torch.ones(6, 8), batch=(1, 2, 400), budget_seconds=1.5)
    (curve,) = found.passes[0].curves
    assert [point.rows for point in curve.points] == [1, 2]
    assert "before a batch of 400 rows" in curve.ended
    assert max(PASSES) < 400


def test_to_print_a_profile_draws_no_random_number() -> None:
    found = fwd.profile(nn.Linear(4, 2), torch.ones(3, 4), batch=(1,), budget_seconds=0.1)
    before = random.getstate()
    assert str(found)
    assert html(found)
    assert random.getstate() == before


class Scaled(nn.Module):
    """Takes a number, perhaps another tensor, and a switch beside its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(
        self, x: Tensor, scale: float, more: Tensor | None = None, *, sign: bool = False
    ) -> Tensor:
        h = self.linear(x) * scale
        h = h if more is None else h + more
        return torch.sign(h) if sign else h


ROWS = torch.ones(3, 4)


@pytest.mark.parametrize(
    ("inputs", "operators"),
    [
        ({"x": ROWS, "scale": 2.0, "sign": True}, {"addmm", "mul", "sign"}),
        ((ROWS, 2.0, torch.ones(3, 2)), {"addmm", "mul", "add"}),
        ((ROWS, torch.tensor(2.0), None), {"addmm", "mul"}),
    ],
)
def test_constants_beside_tensors_reach_every_pass(inputs: Any, operators: set[str]) -> None:
    module = Scaled()
    found = fwd.profile(module, inputs, batch=(1, 2), budget_seconds=0.1)
    ran = {call.operator.split(".")[1] for call in found.passes[0].parts[-1].calls}
    assert {name.replace("linear", "addmm") for name in ran} - {"t"} == operators
    assert "forward" not in vars(module), "the module is left as it is"


class Sides(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 2), nn.Linear(3, 2)

    def forward(self, batch: dict[str, Tensor], scale: float = 1.0) -> Tensor:
        return (self.left(batch["left"]) + self.right(batch["right"])) * scale


def test_tensors_in_a_dict_that_forward_takes_are_inputs_by_path() -> None:
    inside = {"left": ROWS, "right": torch.ones(3, 3)}
    asked: list[Any] = [{"batch": inside}, (inside,), {"batch": inside, "scale": 2.0}]
    for inputs in asked:
        found = fwd.profile(Sides(), inputs, batch=(2,), budget_seconds=0.1)
        assert {layer.path for layer in found.passes[0].parts[0].layers} == {"", "left", "right"}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"x": ROWS, "scale": 2.0, "sing": True}, "takes no argument 'sing'; did you mean 'sign'"),
        ((ROWS, 2.0, None, True, 5), "5 positional inputs, and Scaled takes 4"),
    ],
)
def test_constants_that_nothing_takes_are_refused(inputs: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fwd.profile(Scaled(), inputs, budget_seconds=0.1)


def test_a_batch_of_any_rows_repeats_them_in_turn() -> None:
    load = Contender.of(loaded(nn.Linear(2, 1)), torch.arange(6.0).reshape(3, 2), 8).load
    batch = load.batch(1_000_001, first=2)
    assert isinstance(batch, dict)
    (rows,) = batch.values()
    assert rows.shape == (1_000_001, 2)
    assert rows[:4].tolist() == [[4, 5], [0, 1], [2, 3], [4, 5]]
    assert rows[-1].tolist() == [0, 1]
