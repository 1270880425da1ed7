"""Differences planted into copies of models: the guilty layer is named first."""

from __future__ import annotations

import pytest
from planted import Planted, planted

import forwardpass as fwd

CASES = list(planted())
ENOUGH = 0.95


def named(case: Planted) -> str:
    found = fwd.diff(case.a, case.b, case.inputs, grad="off", expanded=True)
    return found.guilty.path if found.guilty is not None else f"nobody ({found.verdict})"


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    return {case.name: named(case) for case in CASES}


def test_the_guilty_layer_comes_first(answers: dict[str, str]) -> None:
    """A layer that was wrapped or replaced has its error in itself or in what is inside of it."""
    wrong = {
        case.name: f"{answers[case.name]}, not {case.guilty}"
        for case in CASES
        if answers[case.name] != case.guilty
    }
    assert len(CASES) >= 50
    assert len(wrong) <= (1 - ENOUGH) * len(CASES), wrong
