"""What stands on standard error while a verb works."""

from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from forwardpass.nouns.progress import Steps
from forwardpass.showing.live import stepping


def drawn(steps: Steps, most_seconds: float | None, width: int = 80) -> str:
    """What a terminal gets."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width)
    with stepping(steps, console, most_seconds):
        pass
    return file.getvalue()


def lines(written: str) -> list[str]:
    """Without what moves the cursor, and what colours."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r", "\n").splitlines()


def test_what_is_tried_what_is_left_and_the_best_so_far() -> None:
    said = "".join(lines(drawn(Steps("@ openvino", 3, 12, "2.10 × by @ aot"), 300.0)))
    assert "@ openvino" in said
    assert "2.10 × by @ aot" in said
    assert re.search(r"(5:00|4:5\d) left", said)


def test_without_a_limit_what_has_passed() -> None:
    said = "".join(lines(drawn(Steps("pass", 1, 2), None)))
    assert "1/2" in said
    assert "left" not in said


@pytest.mark.parametrize("stage", ["[bold]x[/] \x1b[31m", "@ openvino where " + "x" * 200])
def test_a_plan_is_no_markup_and_stays_in_the_line(stage: str) -> None:
    written = drawn(Steps(stage, 1, 2, best="y" * 200), 300.0)
    assert max(map(cell_len, lines(written))) <= 80
    assert len([line for line in lines(written) if line.strip()]) <= 2  # drawn first, and at last
    assert "\x1b[31m" not in written
