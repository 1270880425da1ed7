"""How padding is told, and what pad-leak says."""

from __future__ import annotations

from typing import Any

import models
import pytest
import torch
from torch import Tensor, nn

import forwardpass as fwd
from forwardpass.checking import check
from forwardpass.checking.examinations import Examination
from forwardpass.checking.rules.pad_leak.paddings import Padding
from forwardpass.probing.marks import Marking, by_mask, marks_of

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
    assert by_mask(torch.tensor(mask), marks_padding)[0] == (lengths, left)


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
    assert not by_mask(torch.tensor(mask), False)


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


def test_what_has_no_rows_goes_in_as_it_is() -> None:
    class Scaled(Mean):
        def forward(self, ids: Tensor, scale: Tensor) -> Tensor:  # type: ignore[override]
            return (self.embed(ids) @ scale).mean(1)

    signature = ["ids: i64[batch tokens=1..64] pad 0 left", "scale: f32[8]"]
    given = {"ids": torch.randint(1, 50, (3, 8)), "scale": torch.randn(8)}
    (finding,) = found(fwd.Model(Scaled(), signature), given)
    assert finding.message.startswith("4 cells of padding before 8 real ones move output of row ")


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


class Spectrum(nn.Module):
    def forward(self, samples: Tensor) -> Tensor:
        return torch.fft.rfft(samples).abs()


def test_an_axis_that_follows_the_cells_in_another_way_is_not_compared() -> None:
    padded = fwd.Model(Spectrum(), "samples: f32[batch 1 samples=25..4000] pad 0")
    findings = found(padded, {"samples": torch.randn(2, 1, 100)})
    assert findings.skipped[0].reason == "no output can be told real cells from padding in"


def test_of_subsampled_cells_those_far_from_the_padding_are_compared() -> None:
    model = models.MODELS["strided"]()
    padded = fwd.Model(model.module, "samples: f32[batch 1 samples=25..4000] pad 0")
    findings = found(padded, {"samples": torch.randn(2, 1, 100)})
    assert not findings.findings
    assert not findings.skipped


@pytest.mark.parametrize(
    ("less", "more", "count"),
    [
        (40, 64, 40),  # as many as there are cells
        (20, 32, 10),  # every other one
        (9, 15, 4),  # of a convolution that reads 8 at a time, with stride 4
        (21, 33, None),  # the bins of a spectrum
        (41, 65, None),  # one more than there are cells
        (80, 128, None),  # two for each cell
        (780, 2016, None),  # pairs
    ],
)
def test_positions_that_can_be_compared(less: int, more: int, count: int | None) -> None:
    padding = Padding((0,), (40,), None, {}, (40, 64), left=False, known="")
    assert padding.cells(less, more, 0) == count


# -- what the inputs say -------------------------------------------------------------------------

LENGTHS = torch.tensor([6, 3, 4])
REAL = torch.arange(6) < LENGTHS[:, None]
LAST = torch.arange(6) == 5
IDS = torch.randint(5, 50, (3, 6), generator=torch.Generator().manual_seed(0))


def marks(**inputs: Tensor) -> Marking | None:
    class Anything(nn.Module):
        def forward(self, **inputs: Tensor) -> Tensor:
            return next(iter(inputs.values())).float()

    model = fwd.load(Anything())
    return marks_of(Examination(model, fwd.record(model, inputs)))


@pytest.mark.parametrize(
    ("valid", "left"),
    [
        (REAL, False), (REAL.long(), False), (REAL.float(), False), (~REAL, False),
        (REAL[:, None], False), (REAL[..., None].float(), False), (LENGTHS, False),
        (LENGTHS.int(), False), (REAL.flip(1), True), (~REAL.flip(1), True),
    ],
)  # fmt: skip
def test_marks_need_no_name(valid: Tensor, left: bool) -> None:
    ids = IDS * (REAL.flip(1) if left else REAL)
    found = marks(tokens=ids, v=valid)
    assert found is not None
    assert (found.name, found.lengths, found.size, found.left) == ("v", [6, 3, 4], 6, left)


@pytest.mark.parametrize(
    "inputs",
    [
        {"ids": IDS, "token_type_ids": (~REAL).long()},
        {"ids": IDS * REAL, "token_type_ids": torch.zeros(3, 6).long()},
        {"ids": torch.where(LAST, 3, IDS), "kinds": LAST.expand(3, 6)},
        {"x": IDS.float(), "label": LENGTHS},
        {"x": IDS.float() * (torch.arange(6) < 4), "label": torch.tensor([6, 2, 4])},
        {"image": torch.rand(3, 3, 6, 6), "t": LENGTHS},
        {"steps": REAL.float(), "others": REAL.float()},
        {"steps": REAL.float(), "others": IDS.float()},
    ],
)  # fmt: skip
def test_segments_labels_and_steps_are_no_marks(inputs: dict[str, Tensor]) -> None:
    assert marks(**inputs) is None


def test_a_mask_of_padding_without_a_full_row_is_read_by_what_stands_under_it() -> None:
    real = torch.arange(6) < (LENGTHS - 1)[:, None]
    found = marks(ids=IDS * real, mask=~real)
    assert found is not None
    assert (found.lengths, found.left) == ([5, 2, 3], False)


def test_what_may_be_a_mask_is_named_where_nothing_is_sure() -> None:
    findings = found(Mean(), {"ids": IDS, "types": REAL.long()})
    assert "`types` may" in findings.skipped[0].reason
