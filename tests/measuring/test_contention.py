"""Contention: what other processes take of a core."""

from __future__ import annotations

from pathlib import Path

import pytest
from burners import burning

from forwardpass.measuring.clocks import WALL
from forwardpass.measuring.contention import Contention

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="this kernel does not count"
)


def spin(seconds: float) -> None:
    ends = WALL.cpu() + seconds
    while WALL.cpu() < ends:
        pass


def test_others_on_the_same_core_take_their_share() -> None:
    with burning():
        contention = Contention()
        spin(0.1)
        share = contention.share
    assert 0.3 < share < 1


def test_where_the_system_does_not_tell_it_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forwardpass.measuring.contention._TASKS", tmp_path)
    contention = Contention()
    spin(0.01)
    assert contention.share == 0
