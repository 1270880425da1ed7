"""A row that ends the process is found by the processes that died, and by no more than a few."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from forwardpass.executing.deaths import AT_WORK, DEATHS, Death, Marks, ProcessEnded, Seam, died
from forwardpass.executing.salvaging import salvage


class Dies(BaseException):
    """A process that dies here: its marks stay as they stood."""


def lived(folder: Path, batches: list[list[int]], bad: set[int]) -> list[int | Exception] | None:
    """What one process makes of batches of positions; None if it died."""
    marks = Marks(folder)
    done: dict[int, int | Exception] = {}

    def compute(positions: list[int]) -> list[int]:
        if bad & set(positions):
            raise Dies((folder / AT_WORK).read_bytes())
        return positions

    try:
        for seed, positions in enumerate(batches):
            seam = Seam(marks, "compute", np.array(positions), seed)
            for start, _, result in salvage(
                lambda a, b, rows=positions: compute(rows[a:b]), 0, len(positions), seam
            ):
                if isinstance(result, Exception):
                    done[positions[start]] = result
                else:
                    done |= dict(zip(result, result, strict=True))
    except Dies as end:
        marks.close(finished=False)
        (folder / AT_WORK).write_bytes(end.args[0])
        return None
    marks.close(finished=True)
    return [done[position] for position in sorted(done)]


@settings(max_examples=60, deadline=None)
@given(
    order=st.permutations(range(24)),
    cuts=st.sets(st.integers(1, 23), max_size=4),
    bad=st.sets(st.integers(0, 23), max_size=3),
)
def test_the_rows_alone_are_left_out(order: list[int], cuts: set[int], bad: set[int]) -> None:
    ends = [0, *sorted(cuts), 24]
    batches = [order[a:b] for a, b in pairwise(ends)]
    with tempfile.TemporaryDirectory() as name:
        folder, processes = Path(name), 1
        while (rows := lived(folder, batches, bad)) is None:
            assert died(folder)
            processes += 1
            assert processes <= 1 + 4 * len(bad), "each row ends four processes at most"
        assert {i for i, row in enumerate(rows) if isinstance(row, ProcessEnded)} == bad
        assert [row for row in rows if isinstance(row, int)] == sorted(set(range(24)) - bad)
        assert not list(folder.iterdir()), "nothing is left of it"


def test_a_process_that_was_killed_once_changes_nothing(tmp_path: Path) -> None:
    """By the user, say: the batch is tried again as a whole, so that its bits are the same."""
    marks = Marks(tmp_path)
    with marks.at(Death("compute", 7, 0, 16)):
        at_work = (tmp_path / AT_WORK).read_bytes()
    marks.close(finished=False)
    assert not died(tmp_path)
    (tmp_path / AT_WORK).write_bytes(at_work)
    assert died(tmp_path)
    again = Marks(tmp_path)
    assert again.deaths == [Death("compute", 7, 0, 16)]
    asked: list[tuple[int, int]] = []
    seam = Seam(again, "compute", np.arange(16), 7)
    list(salvage(lambda a, b: asked.append((a, b)), 0, 16, seam))
    assert asked == [(0, 16)]
    again.close(finished=False)
    assert (tmp_path / DEATHS).exists(), "it is remembered until all is done"
    assert Marks(tmp_path).deaths == [Death("compute", 7, 0, 16)]
