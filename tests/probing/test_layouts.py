"""Where a value holds the rows of a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from forwardpass.probing.layouts import Layout, layout_of


@pytest.mark.parametrize(
    ("one", "two", "layout"),
    [
        ((4, 7), (5, 7), Layout(0, 1, (1,))),
        ((7, 4, 3), (7, 5, 3), Layout(1, 1, (1,))),
        ((28, 3), (35, 3), Layout(0, 7, (1, 7))),
        ((4, 4), (5, 5), None),  # rows against rows
        ((7,), (7,), None),
        ((6, 3), (7, 3), None),  # grows, but not with the rows
    ],
)
def test_what_grows_with_the_rows_holds_them(one: Any, two: Any, layout: Layout | None) -> None:
    assert layout_of(one, two, 4, 5) == layout


def test_rows_lie_in_front_of_other_axes_behind_them_or_between() -> None:
    layout = layout_of((24, 5), (30, 5), 4, 5)
    assert layout is not None
    assert layout.together == (1, 2, 3, 6)
    told = torch.arange(24 * 5).view(2, 4, 3, 5)
    parts = list(layout.parts(told.reshape(24, 5), 1, 2))
    assert all(part.shape == (12, 5) for part in parts)
    assert [torch.equal(part, told[:, 1:3].reshape(12, 5)) for part in parts] == [
        False, False, True, False,
    ]  # fmt: skip
    (last,) = layout._replace(together=(3,)).parts(told.reshape(24, 5), -1)
    assert torch.equal(last, told[:, 3].reshape(6, 5))
