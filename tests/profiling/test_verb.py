"""What a profile says of the machine and the clock."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn

import forwardpass as fwd
from forwardpass.errors import UsageError
from forwardpass.profiling import verb
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


def test_to_print_a_profile_draws_no_random_number() -> None:
    found = fwd.profile(nn.Linear(4, 2), torch.ones(3, 4), batch=(1,), budget_seconds=0.1)
    before = random.getstate()
    assert str(found)
    assert html(found)
    assert random.getstate() == before
