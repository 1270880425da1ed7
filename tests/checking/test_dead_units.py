"""What dead-units says, and what it takes to say it."""

from __future__ import annotations

from math import comb, exp, log

import pytest
import torch
from torch import nn

import forwardpass as fwd
from forwardpass.checking import check
from forwardpass.checking.rules.dead_units.chances import (
    SELDOM,
    UNLIKELY,
    beyond,
    log_subsets,
    rows_to_know_closed,
    rows_to_know_most,
)
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


def test_what_stands_further_below_than_chance_puts_it() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(256, generator=generator)
    every = torch.ones(256, dtype=torch.bool)
    assert not beyond(drawn, every).any()
    drawn[7], drawn[9] = -16.0, -20.0
    assert beyond(drawn, every).nonzero().flatten().tolist() == [7, 9]
    assert not beyond(drawn, drawn > -1).any()  # only closed units are named
    assert not beyond(-drawn, every).any()  # far above is open


def test_half_of_the_units_are_closed_by_chance_however_alike_the_rows_are() -> None:
    signs = torch.ones(64)
    signs[::2] = -1
    assert not beyond(signs, signs < 0).any()


@pytest.mark.parametrize(("units", "unlikely"), [(8, False), (16, False), (64, True)])
def test_all_units_closed_are_as_many_coins(units: int, unlikely: bool) -> None:
    standing = torch.full((units,), -1.0)
    assert bool(beyond(standing, standing < 0).all()) is unlikely


def test_a_bias_is_told_by_the_weights_where_all_units_are_closed() -> None:
    bias, closed = torch.full((8,), -5.0), torch.ones(8, dtype=torch.bool)
    assert beyond(bias, closed, 0.2 * torch.randn(8, 8)).all()
    assert not beyond(bias, closed, 4 * torch.randn(8, 8)).any()
    assert not beyond(torch.zeros(8), closed, torch.zeros(8, 8)).any()


@pytest.mark.parametrize("units", [1, 12, 100])
def test_the_ways_to_name_some_of_the_units(units: int) -> None:
    exact = [log(comb(units, c)) + log(units) for c in range(1, units + 1)]
    assert log_subsets(units).tolist() == pytest.approx(exact, abs=1e-9)


def test_no_number_of_units_is_too_large() -> None:
    drawn = torch.randn(1 << 17, generator=torch.Generator().manual_seed(0))
    assert not beyond(drawn, drawn < 0).any()
    assert not beyond(-drawn.abs()[:16384], torch.arange(16384) < 8192).any()


def test_so_many_rows_make_it_unlikely() -> None:
    for units in (2, 32, 4096):
        rows = rows_to_know_closed(units)
        assert units * (1 - SELDOM) ** rows <= exp(UNLIKELY) < units * (1 - SELDOM) ** (rows - 1)
    assert rows_to_know_most(24, 1.0) < rows_to_know_most(24, 0.75) < rows_to_know_most(24, 0.55)


def test_weights_prove_it_on_one_row() -> None:
    (finding,) = found(closed(12), rows=1)
    assert finding.evidence["dead"] == 12
    assert finding.evidence["opens_at_most"] == 0


def test_what_only_rows_tell_asks_for_as_many() -> None:
    layers = nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2)
    with torch.no_grad():
        layers[1].bias[:12] -= 30  # type: ignore[index, operator]
    module = nn.Sequential(*layers).eval()
    few = found(module, rows=16)
    assert not few.findings
    (skipped,) = few.skipped
    assert skipped.reason.startswith("12 of 32 units at ")
    assert skipped.reason.endswith("may carry nothing on; 16 rows are too few to tell: give 165")
    assert found(module, rows=164).skipped
    (finding,) = found(module, rows=165)
    assert finding.evidence["dead"] == 12
    assert finding.evidence["opens_at_most"] == SELDOM


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


class OneOfThreeExperts(nn.Module):
    """All rows go to the first expert; the others compute on none."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), kind(), nn.Linear(32, 4))
            for kind in (nn.ReLU, nn.ReLU, nn.Sigmoid)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = torch.zeros(len(x), dtype=torch.long)
        out = x.new_zeros(len(x), 4)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero().flatten()
            out = out.index_add(0, rows, expert(x[rows]))
        return out


def test_an_expert_that_no_row_reaches_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No rule fails on it, either."""
    monkeypatch.setenv("FORWARDPASS_TRACEBACK", "1")
    torch.manual_seed(0)
    module = OneOfThreeExperts().eval()
    assert not found(module).findings
    with torch.inference_mode():
        every = check(module, torch.randn(16, 16))
    assert not [finding for finding in every.findings if finding.severity == "error"]


@pytest.mark.parametrize("groups", [1, 8])
def test_a_bias_that_stayed_as_pytorch_made_it_says_nothing(groups: int) -> None:
    """Weights drawn anew and small inputs: by its bias alone, half of the units are closed."""
    torch.manual_seed(0)
    conv = nn.Conv2d(24, 96, 1, groups=groups)
    nn.init.trunc_normal_(conv.weight, std=0.02)
    x = 1e-3 * torch.rand(2, 24, 4, 4)
    module = nn.Sequential(conv, nn.ReLU6(), nn.Conv2d(96, 2, 1)).eval()
    assert (module[:2](x).amax((0, 2, 3)) == 0).sum() > 30
    assert not check(module, x, rules=["dead-units"]).findings
    with torch.no_grad():
        conv.bias[:20] = -3.0  # type: ignore[index]
    (finding,) = check(module, x, rules=["dead-units"])
    assert finding.evidence["dead"] == 20
