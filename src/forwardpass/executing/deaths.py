"""Deaths: rows over which a process died, as of a segmentation fault, so that no run dies twice of
them without end.

Before user code gets rows, it is noted which, in a file that is mapped into memory: what stands
there outlives the process. The next run counts it as a death over these rows. Rows that two died
over are tried one by one; a row over which two died alone then is left out.
"""

from __future__ import annotations

import json
import mmap
import struct
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

STAGES = ("sample", "encode", "compute", "decode")
AT_WORK, DEATHS = ".rows-at-work", ".deaths.jsonl"
_SLOT = struct.Struct("<qqqq")
_SLOTS = 64
"""Of one thread and stage each."""
_TWICE = 2
"""Deaths that make rows suspect: the first may be the user's who killed the process."""
_TOGETHER = 4
"""Deaths over several rows of which none is deadly alone, after which they are kept apart."""


class ProcessEnded(Exception):
    """Stands for what no process could raise any more."""


class Death(NamedTuple):
    """A process that died while `stage` had rows: positions `start` … `stop` - 1 in the data, or
    places in the batch that is seeded with `batch`, where that is not -1."""

    stage: str
    batch: int
    start: int
    stop: int


class Marks:
    """Which rows user code has, and over which processes died, for one folder of output."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.deaths = _told(folder)
        (folder / DEATHS).unlink(missing_ok=True)
        if self.deaths:
            (folder / DEATHS).write_text("".join(json.dumps(d) + "\n" for d in self.deaths))
        with (folder / AT_WORK).open("wb") as file:
            file.write(bytes(_SLOT.size * _SLOTS))
        with (folder / AT_WORK).open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._slots: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()

    @contextmanager
    def at(self, death: Death) -> Generator[None]:
        """Within, user code has these rows."""
        place = self._slot(death.stage) * _SLOT.size
        _SLOT.pack_into(
            self._memory, place, STAGES.index(death.stage) + 1, *map(int, death[1:])
        )  # fmt: skip
        try:
            yield
        finally:
            self._memory[place : place + 8] = bytes(8)

    def close(self, *, finished: bool) -> None:
        """Say that the process ends in order; and, once all is done, forget who died."""
        self._memory.close()
        if finished:
            forget(self._folder)
        (self._folder / AT_WORK).unlink(missing_ok=True)

    def _slot(self, stage: str) -> int:
        key = (stage, threading.get_ident())
        if key not in self._slots:
            with self._lock:
                self._slots[key] = len(self._slots) % _SLOTS
        return self._slots[key]


def died(folder: Path) -> bool:
    """Whether the last run into a folder died, rather than ended."""
    return (folder / AT_WORK).exists()


def forget(folder: Path) -> None:
    """Remove what was noted of a run that is finished."""
    for name in (AT_WORK, DEATHS):
        (folder / name).unlink(missing_ok=True)


def _told(folder: Path) -> list[Death]:
    """The deaths that earlier runs noted, and those of the last one."""
    noted = folder / DEATHS
    lines = noted.read_text().splitlines() if noted.exists() else []
    found = [Death(*json.loads(line)) for line in lines]
    if died(folder):
        slots = (folder / AT_WORK).read_bytes()
        whole = len(slots) // _SLOT.size * _SLOT.size
        for stage, batch, start, stop in _SLOT.iter_unpack(slots[:whole]):
            if 1 <= stage <= len(STAGES):
                found.append(Death(STAGES[stage - 1], batch, start, stop))
    return found


class Seam(NamedTuple):
    """Where rows go to user code at one stage.

    Attributes:
        positions: in the data, of each row.
        batch: the seed of a batch, whose rows are no neighbours; -1 where they are.
    """

    marks: Marks
    stage: str
    positions: Sequence[int] | Any
    batch: int = -1

    def at(self, start: int, stop: int) -> Any:
        """The context in which user code has rows `start` … `stop` - 1."""
        return self.marks.at(self._death(start, stop))

    def is_suspect(self, start: int, stop: int) -> bool:
        """Whether two processes died over some of these rows."""
        return bool(self.marks.deaths) and len(self.over(start, stop)) >= _TWICE

    def is_deadly(self, row: int) -> bool:
        """Whether processes died over this row, the last two over it alone."""
        return bool(self.marks.deaths) and self._ends(row, row + 1, _TWICE)

    def require_harmless(self, start: int, stop: int) -> None:
        """Raise ProcessEnded for rows of which one is deadly, and for those that are together."""
        if not self.marks.deaths:
            return
        together = stop - start > 1 and self._ends(start, stop, _TOGETHER)
        if together or any(map(self.is_deadly, range(start, stop))):
            raise ProcessEnded(f"each process ended that had this row ({self.stage})")

    def _ends(self, start: int, stop: int, times: int) -> bool:
        """Whether so many processes died over just these rows, and one more over them at all."""
        over, just = self.over(start, stop), self._death(start, stop)
        return len(over) > times and sum(death[1:] == just[1:] for death in over) >= times

    def over(self, start: int, stop: int) -> list[Death]:
        """The deaths over some of these rows. Who dies of a sample dies of it in its turn."""
        stages = {self.stage, "sample"} if self.stage == "compute" else {self.stage}
        return [
            death
            for death in self.marks.deaths
            if death.stage in stages
            and (
                any(death.start <= int(p) < death.stop for p in self.positions[start:stop])
                if death.batch == -1
                else death.batch == self.batch and death.start < stop and start < death.stop
            )
        ]

    def _death(self, start: int, stop: int) -> Death:
        if self.batch != -1 and stop - start > 1:
            return Death(self.stage, self.batch, start, stop)
        first, last = int(self.positions[start]), int(self.positions[stop - 1])
        return Death(self.stage, -1, first, last + 1)
