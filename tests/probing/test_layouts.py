"""Where a value holds the rows of a batch."""

from __future__ import annotations

from typing import Any

import pytest

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
