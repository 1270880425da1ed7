"""torch.compile: what is said of it is what it did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import models
import pytest
import torch
from torch import nn
from torch._dynamo import config as of_dynamo
from torch._inductor import config as of_inductor

from forwardpass import Forward, Model
from forwardpass.building.compiling import Compiled
from forwardpass.errors import BuildError


class Speaking(nn.Module):
    """Prints in its middle, where no graph can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden = self.first(features)
        print(end="")
        return self.second(hidden)


@pytest.mark.parametrize(
    ("make", "anew"),
    [
        (models.mlp, ["[1, 16]"]),
        pytest.param(models.bilstm, ["[1, 16]", "[1, 1]"], marks=pytest.mark.soak),
    ],
)
def test_a_module_is_one_graph_whatever_its_sizes_are_and_flags_stay(
    make: Callable[[], Model], anew: list[str]
) -> None:
    before = of_inductor.freezing, of_dynamo.allow_rnn
    engine = models.built(Forward(make()) @ "inductor(threads=1)")
    assert (of_inductor.freezing, of_dynamo.allow_rnn) == before
    (done,) = engine.applied
    assert done.step == "@ inductor"
    # An LSTM is one operator of it; PyTorch compiles an axis of 1 on its own, rows or tokens.
    count = f"{1 + len(anew)} graphs"
    assert done.did == f"{count}, no break, compiled anew for inputs of {', '.join(anew)}"
    assert done.moved < 1e-5
    assert len(done.on) > 3


def test_where_a_module_falls_apart_is_said() -> None:
    engine = models.built(Forward(Model(Speaking(), models.FEATURES)) @ "inductor(threads=1)")
    (done,) = engine.applied
    graphs, _, where = done.did.partition(" graphs, broken at ")
    assert int(graphs) > 1
    line = where.split(": ")[0]
    assert line.endswith(f"test_compiling.py:{Speaking.forward.__code__.co_firstlineno + 2}")
    assert "print" in where or "builtin" in where


def test_what_is_not_compiled_at_all_is_refused() -> None:
    trace: Any = torch.jit.trace(nn.Linear(4, 2).eval(), torch.randn(3, 4))
    with torch.inference_mode(), pytest.raises(BuildError, match="nothing of it was compiled"):
        Compiled(trace, True, frozen=True)(torch.randn(3, 4))


def test_two_modules_of_a_class_share_nothing() -> None:
    """Their weights are constants of what was compiled."""
    one, other = nn.Linear(4, 2).eval(), nn.Linear(4, 2).eval()
    value = torch.randn(3, 4)
    with torch.inference_mode():
        for module in (one, other):
            torch.testing.assert_close(Compiled(module, True, frozen=True)(value), module(value))
