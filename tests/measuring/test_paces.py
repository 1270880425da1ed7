"""The pace of a machine: what one time says of another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forwardpass.measuring import paces
from forwardpass.measuring.paces import Looks

SECONDS = st.floats(1e-3, 1.0)


@given(st.lists(SECONDS, min_size=2, max_size=30), st.floats(0.1, 10))
def test_a_drift_is_a_share_whatever_the_unit(seconds: list[float], times: float) -> None:
    drift = Looks(tuple(seconds)).drift
    assert drift >= 0
    assert Looks(tuple(times * s for s in seconds)).drift == pytest.approx(drift, abs=1e-9)


@given(SECONDS, SECONDS)
def test_two_times_are_within_twice_the_drift(one: float, other: float) -> None:
    wide = 1 + Looks((one, other)).drift
    assert one / wide <= other * wide * (1 + 1e-9)
    assert other / wide <= one * wide * (1 + 1e-9)


def test_one_time_alone_says_nothing() -> None:
    assert Looks().drift == Looks((0.1,)).drift == 0.0


def test_what_other_processes_saw_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path))
    for seconds in (0.010, 0.010, 0.0125):
        monkeypatch.setattr(paces, "_seconds", lambda device, seconds=seconds: seconds)
        looks = paces.look("cpu")
    assert looks.seconds == (0.010, 0.010, 0.0125)
    assert looks.drift == pytest.approx(1.25**0.5 - 1)


def test_a_look_leaves_threads_and_generators_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_threads: int
) -> None:
    monkeypatch.setenv("FORWARDPASS_CACHE", str(tmp_path))
    before = torch.get_rng_state()
    assert paces.look("cpu").seconds[0] > 0
    assert torch.get_num_threads() == two_threads
    assert torch.equal(torch.get_rng_state(), before)
