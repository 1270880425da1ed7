"""What a profile says of the machine and the clock."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import forwardpass as fwd
from forwardpass.profiling import verb


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
    assert found.limits.matmul_flops_per_second["f32"] > 0
