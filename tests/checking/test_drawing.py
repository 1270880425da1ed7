"""Random numbers of a pass: what train-mode and nondeterminism make of them, beyond the bench."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forwardpass.checking import check
from forwardpass.nouns.findings import Findings


class Does(nn.Module):
    def __init__(self, what: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.what = what

    def forward(self, x: Tensor) -> Any:
        return self.what(self.fc(x))


def found(what: Callable[[Tensor], Any], rows: int = 6, **how: Any) -> Findings:
    given: dict[str, Any] = {"rules": ["train-mode", "nondeterminism"], "grad": "off", **how}
    return check(Does(what).eval(), torch.randn(rows, 8), **given)


def noise(h: Tensor) -> Tensor:
    return h + torch.randn_like(h)


def drops(h: Tensor) -> Tensor:
    return h * (torch.rand_like(h) > 0.3)


def test_noise_is_a_note_with_how_far_outputs_move() -> None:
    (finding,) = found(noise)
    assert (finding.rule, finding.severity) == ("nondeterminism", "note")
    assert "drawn by torch.randn_like: with another seed they differ by" in finding.message
    assert finding.evidence["draws"] == 1
    assert float(finding.evidence["output_moves"]) > 0.1


def test_lines_that_draw_are_counted() -> None:
    def twice(h: Tensor) -> Tensor:
        h = h + torch.randn_like(h)
        return h * torch.rand_like(h)

    (finding,) = found(twice)
    assert "drawn by torch.randn_like and at 1 more line:" in finding.message


def test_outputs_of_another_size_are_not_alike() -> None:
    def some(h: Tensor) -> Tensor:
        return h[: int(torch.randint(1, 6, ()))]

    (finding,) = found(some)
    assert "with another seed they are not alike" in finding.message


def test_dropout_of_ones_own_is_an_error_in_eval_mode_only() -> None:
    (finding,) = found(drops)
    assert (finding.rule, finding.severity) == ("train-mode", "error")
    assert finding.remedy == "draw the mask only if self.training"
    (finding,) = found(drops, mode="train")
    assert (finding.rule, finding.severity) == ("train-mode", "warning")
    assert finding.remedy == "draw the mask only if self.training"
    assert not len(found(drops, mode="train", grad="on"))


def test_what_dropout_moves_is_told_once() -> None:
    (finding,) = found(lambda h: noise(F.dropout(h, 0.3)))
    assert finding.rule == "train-mode"
    (finding,) = found(lambda h: noise(drops(h)))
    assert finding.rule == "train-mode"
    assert finding.evidence["dropouts"] == 1


def test_rows_that_are_dropped_seldom_are_found() -> None:
    def path(h: Tensor) -> Tensor:
        return h + h.relu() * torch.empty(len(h), 1).bernoulli_(0.8)

    torch.manual_seed(0)
    (finding,) = found(path, rows=3)
    assert finding.rule == "train-mode"
