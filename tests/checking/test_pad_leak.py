"""How padding is told, and what pad-leak says."""

from __future__ import annotations

from typing import Any

import models
import pytest
import torch
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass.checking import check
from forwardpass.checking.paddings import by_mask

Rows = list[list[int]]


@pytest.mark.parametrize(
    ("mask", "marks_padding", "lengths", "left"),
    [
        ([[1, 1, 1], [1, 0, 0]], False, [3, 1], False),
        ([[0, 0, 0], [0, 1, 1]], False, [3, 1], False),  # ones mark the padding: row 0 has none
        ([[1, 1, 1], [0, 0, 1]], False, [3, 1], True),
        ([[1, 1, 0], [1, 0, 0]], False, [2, 1], False),  # could be padding in front, of zeros
        ([[0, 0, 1], [0, 1, 1]], True, [2, 1], False),
    ],
)
def test_a_mask_tells_real_cells(
    mask: Rows, marks_padding: bool, lengths: list[int], left: bool
) -> None:
    assert by_mask(torch.tensor(mask), marks_padding) == (lengths, left)


@pytest.mark.parametrize(
    "mask",
    [
        [[1, 1, 1], [1, 1, 1]],
        [[1, 0, 1], [1, 1, 1]],
        [[0, 1, 0], [1, 0, 1]],
        [[2, 1, 0], [1, 1, 1]],
    ],
)
def test_others_are_no_masks_of_padding(mask: Rows) -> None:
    assert by_mask(torch.tensor(mask), False) is None


class Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)

    def forward(self, ids: Tensor, types: Tensor | None = None) -> Tensor:
        return self.embed(ids).mean(1)


def found(model: Any, inputs: Any) -> Any:
    return check(model, inputs, rules=["pad-leak"], mode="eval", grad="inference")


def test_a_leak_says_how_much_padding_moved_what() -> None:
    model = fwd.Model(Mean(), "ids: i64[batch tokens=1..64] pad 0")
    (finding,) = found(model, {"ids": torch.randint(1, 50, (3, 8))})
    assert finding.severity == "error"
    assert finding.message.startswith("4 cells of padding after 8 real ones move output of row ")
    assert finding.message.endswith("it comes in at .mean")
    assert finding.evidence["known"] == "`ids: i64[batch tokens=1..64] pad 0`"


def test_where_no_more_fits_the_padding_there_is_is_cut() -> None:
    signature = ["ids: i64[batch tokens=1..8] pad 0", "mask: i64[batch tokens] = valid(tokens)"]

    class Masked(Mean):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
            return self.embed(ids).mean(1)

    mask = (torch.arange(8) < torch.tensor([8, 3, 5])[:, None]).long()
    given = {"ids": torch.randint(1, 50, (3, 8)) * mask, "mask": mask}
    (finding,) = found(fwd.Model(Masked(), signature), given)
    assert finding.message.startswith("5 cells of padding after 3 real ones move output of row 1 ")


@pytest.mark.parametrize(
    "inputs",
    [
        {"ids": torch.randint(1, 50, (3, 4))},
        {"ids": torch.randint(1, 50, (2, 4)), "types": torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])},
    ],
)
def test_nothing_says_what_is_padding(inputs: Any) -> None:
    findings = found(Mean(), inputs)
    assert findings.skipped[0].reason.startswith("nothing says what is padding")


def test_an_axis_that_follows_the_cells_in_another_way_is_not_compared() -> None:
    model = models.MODELS["strided"]()
    padded = fwd.Model(model.module, "samples: f32[batch 1 samples=25..4000] pad 0")
    findings = found(padded, {"samples": torch.randn(2, 1, 100)})
    assert findings.skipped[0].reason == "no output can be told real cells from padding in"
