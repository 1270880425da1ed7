"""The team of operator threads: the smallest that is worth it."""

from __future__ import annotations

from typing import Any

import models
import numpy as np
import pytest
import torch

from forwardpass import Forward
from forwardpass.serving import teams
from forwardpass.tensors.blocks import Block


class Scaling:
    """Stands for an engine: what a pass takes by its threads, of a clock that it moves itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]) -> None:
        self.engine: Any = models.built(Forward(models.mlp()))
        self.replicas, self.seconds, self.now = self.engine.replicas, seconds, 0.0
        clock = teams.WALL.__class__(now=lambda: self.now)
        monkeypatch.setattr(teams, "WALL", clock)

    def __call__(self, inputs: Any) -> Any:
        self.now += self.seconds[torch.get_num_threads()]
        return self.engine(inputs)


def rows() -> Block:
    none = np.zeros((3, 0), np.int64)
    signature = models.mlp().signature
    assert signature is not None
    return Block(signature, {"features": np.ones((3, 16), np.float32)}, none, none)


@pytest.mark.parametrize(
    ("seconds", "threads"),
    [({1: 1.0, 2: 0.95}, 1), ({1: 1.0, 2: 0.55}, 2), ({1: 1.0, 2: 3.0}, 1)],
    ids=["gains little", "pays", "loses"],
)
def test_it_is_the_smallest_that_is_worth_it(
    seconds: dict[int, float], threads: int, two_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = Scaling(monkeypatch, seconds)
    teams.settle_threads(engine, rows())
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("took", "threads"),
    [
        ({1: 60e-6, 2: 50e-6}, 1),  # its second core is worth more to the connections
        ({1: 60e-3, 2: 38e-3}, 2),
        ({1: 8e-3, 2: 5e-3, 4: 4.9e-3}, 2),
    ],
    ids=["small", "large", "all cores"],
)
def test_a_team_with_all_cores_pays_for_what_it_keeps_waiting(
    took: dict[int, float], threads: int
) -> None:
    assert teams.worth(took, 0.8e-3) == threads


def test_what_the_plan_says_is_left_alone(two_threads: int) -> None:
    engine = models.built(Forward(models.mlp()) @ "eager(threads=1)")
    teams.settle_threads(engine, rows())
    assert torch.get_num_threads() == two_threads
