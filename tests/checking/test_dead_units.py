"""What dead-units says, and what it takes to say it."""

from __future__ import annotations

from math import comb, exp, log

import pytest
import torch
from torch import nn

import forwardpass as fwd
from forwardpass.checking import check
from forwardpass.checking.rules.dead_units.chances import Chance, log_at_most
from forwardpass.checking.rules.dead_units.units import unit_axis
from forwardpass.nouns.findings import Findings


def closed(count: int, units: int = 32) -> nn.Module:
    module = nn.Sequential(nn.Linear(16, units), nn.ReLU(), nn.Linear(units, 2)).eval()
    with torch.no_grad():
        module[0].bias[:count] -= 30  # type: ignore[index]
    return module


def found(module: nn.Module, rows: int = 16) -> Findings:
    return check(module, torch.randn(rows, 16), rules=["dead-units"])


def test_the_share_decides_between_warning_and_note() -> None:
    (many,) = found(closed(12))
    assert many.severity == "warning"
    assert many.message.startswith("12 of 32 units (38%) are 0 at all 16 positions")
    assert many.evidence["dead"] == 12
    (few,) = found(closed(2))
    assert few.severity == "note"
    assert not found(closed(1)).findings


def test_it_says_where_an_activation_opens_and_what_it_gives_below() -> None:
    module = closed(12)
    module[1] = nn.Threshold(0.1, 20.0)  # type: ignore[operator]
    (finding,) = found(module)
    assert "(38%) are 20 at all 16 positions" in finding.message
    assert finding.message.endswith("× their spread below 0.1")


def test_a_few_units_of_many_count_where_no_chance_explains_them() -> None:
    (finding,) = found(closed(2, units=256), rows=64)
    assert finding.severity == "note"
    assert finding.message.startswith("2 of 256 units (1%)")


@pytest.mark.parametrize(
    ("chance", "far", "units", "explained"),
    [
        (Chance(2.0), [-1.0] * 8, 8, True),  # all closed, as one in 256 layers is
        (Chance(2.0), [-8.0] * 8, 8, False),
        (Chance(2.0), [-1.0] * 24, 24, False),  # a coin for each
        (Chance(2.0), [-6.0, -6.0], 256, True),  # the most extreme of many
        (Chance(2.0), [-16.0, -16.0], 256, False),
        (Chance(2.0), [-2.0] * 16, 16, True),
    ],
)
def test_what_chance_explains(
    chance: Chance, far: list[float], units: int, explained: bool
) -> None:
    assert chance.explains(torch.tensor(far), units) is explained


@pytest.mark.parametrize(("units", "heads"), [(12, 0), (12, 12), (100, 20), (1000, 420)])
def test_the_chance_of_so_many_coins(units: int, heads: int) -> None:
    exact = sum(comb(units, k) for k in range(heads + 1))
    assert log_at_most(units, heads) == pytest.approx(log(exact) - units * log(2), abs=1e-9)


def test_no_number_of_units_is_too_large() -> None:
    assert exp(log_at_most(1 << 17, 1 << 16)) == pytest.approx(0.5, abs=2e-3)
    assert log_at_most(1 << 17, 1000) < -80_000
    assert Chance(1.0).explains(torch.full((8192,), -0.5), 16384)


def test_too_few_rows_prove_nothing() -> None:
    assert found(closed(12), rows=4).skipped[0].reason == "4 rows are too few: give 8"


def test_layers_alike_are_said_once() -> None:
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
            with torch.no_grad():
                for layer in self.layers:
                    layer.bias[:6] -= 30  # type: ignore[index, operator]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = x + torch.relu(layer(x))
            return x

    (finding,) = found(Stack().eval())
    assert finding.message.endswith("(the worst of 4 such layers)")


def test_units_lie_where_their_layer_puts_them() -> None:
    conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    record = fwd.record(conv, torch.randn(2, 3, 6, 6))
    assert unit_axis(record, record.calls[-1].inputs[0]) == 1
    linear = nn.Sequential(nn.Linear(8, 4), nn.Dropout(), nn.ReLU())
    record = fwd.record(linear, torch.randn(2, 5, 8))
    assert unit_axis(record, record.calls[-1].inputs[0]) == 2
    record = fwd.record(nn.ReLU(), torch.randn(2, 8))
    assert unit_axis(record, record.calls[-1].inputs[0]) is None
