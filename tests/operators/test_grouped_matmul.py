"""Products in groups, against a loop over the groups."""

from __future__ import annotations

import pytest
import torch

from forwardpass.operators import grouped_matmul

NAME = "aten._grouped_mm"


def given() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    b = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    ends = torch.tensor([2, 2, 7], dtype=torch.int32)  # the second expert has no row
    expected = torch.cat([a[:2] @ b[0], a[2:] @ b[2]])
    return {"self": a, "mat2": b, "offs": ends}, expected


def test_each_row_meets_the_matrix_of_its_group() -> None:
    arguments, expected = given()
    for row in range(7):
        for column in range(5):
            steps = grouped_matmul.terms(NAME, arguments, 0, (row, column))
            assert steps[-1].value == pytest.approx(float(expected[row, column]), rel=1e-12)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((7, 4), (3, 4, 5), 7 * 4 * 5),
        ((3, 7, 4), (3, 4, 5), 3 * 7 * 4 * 5),
        ((7, 12), (12, 5), 7 * 12 * 5),
        ((3, 7, 4), (4, 15), 7 * 4 * 15),
    ],
)
def test_macs(a: tuple[int, ...], b: tuple[int, ...], expected: int) -> None:
    shapes = {"self": torch.empty(a), "mat2": torch.empty(b)}
    assert grouped_matmul.macs(NAME, shapes, ()) == expected


def test_other_forms_are_not_explained() -> None:
    arguments = {"self": torch.ones(2, 2, 2), "mat2": torch.ones(2, 2, 2), "offs": None}
    with pytest.raises(LookupError, match="only rows by groups"):
        grouped_matmul.terms(NAME, arguments, 0, (0, 0, 0))
