"""Stretches: the calls of one pass, timed where they run."""

from __future__ import annotations

import time

import pytest
import torch

from forwardpass.measuring.clocks import WALL
from forwardpass.measuring.stretches import Stretches


def test_each_call_has_its_seconds_in_order() -> None:
    stretches = Stretches("cpu")
    for seconds in (0.02, 0.0, 0.04):
        assert stretches.run(lambda s: time.sleep(s) or s, (seconds,), {}) == seconds
    long, none, longer = stretches.taken()
    assert long >= 0.019
    assert longer >= 0.039
    assert none < long
    assert stretches.taken() == [], "each is told once"


def test_an_empty_stretch_takes_nothing() -> None:
    stretches = Stretches("cpu")
    for _ in range(200):
        stretches.run(lambda: None, (), {})
    taken = sorted(stretches.taken())
    assert taken[0] >= 0
    assert taken[100] < 1e-6, "what looking at the clock takes was taken off"


def test_they_are_not_more_than_what_they_are_parts_of() -> None:
    one = torch.randn(64, 64)
    stretches, began = Stretches("cpu"), WALL.now()
    for _ in range(50):
        stretches.run(torch.mm, (one, one), {})
    whole = WALL.now() - began
    assert 0 < sum(stretches.taken()) <= whole


def test_what_raises_leaves_no_stretch() -> None:
    stretches = Stretches("cpu")
    with pytest.raises(RuntimeError):
        stretches.run(torch.mm, (torch.ones(2, 3), torch.ones(2, 3)), {})
    assert stretches.taken() == []
