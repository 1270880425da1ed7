"""Premises: what both Workshops share: whose rows count, and what was computed of them already."""

from __future__ import annotations

import itertools
import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from forwardpass.measuring.clocks import WALL
from forwardpass.tuning.parts import DataParts
from forwardpass.tuning.workshops import Candidate, Outputs, PartName, TrialError

_FEW: Final = 16
"""Rows by which it is told how long all of them take."""
_TIMES: Final = 9
"""So often at least there has to be time to compute the largest part: thrice for the last gate,
once to search with, and for plans."""


@dataclass
class Premises(ABC):
    """Where plans are tried.

    Attributes:
        parts: of the data; once `settle` is through, all their rows can be computed.
        folder: of all that is made; it goes when this is closed.
        until: see Workshop.
    """

    parts: DataParts
    folder: Path
    until: float = field(default=math.inf, kw_only=True)
    _known: dict[PartName, Outputs] = field(default_factory=dict[PartName, Outputs], kw_only=True)
    _count: Iterator[int] = field(default_factory=itertools.count, kw_only=True)

    @property
    def baseline(self) -> Candidate:
        """The Forward as it was given."""
        return Candidate(str(self.parts.forward.plan), None)

    def settle(self) -> None:
        """Let the rows go that the Forward as given cannot compute; before that, those for which
        there is no time.

        Raises TrialError where its process dies, DataError where no row is left of a part.
        """
        self._shorten()
        failed: dict[PartName, list[int]] = {}
        why = ""
        for name in self.parts.blocks:
            self._known[name], found = self.computed(self.baseline, name, self.parts.rows[name])
            failed[name] = sorted(found)
            why = why or next(iter(found.values()), "")
        if any(failed.values()):
            self.parts = self.parts.without(failed, why, self.folder / "parts")

    def _shorten(self) -> None:
        """Go on with fewer rows where all would leave no time to try a plan on them."""
        if math.isinf(self.until):
            return
        few, rows = min(_FEW, self.parts.rows["search"]), self.parts.rows
        took: list[float] = []
        for count in (1, 1, few):  # the first begins its process, the second is what asking costs
            began = WALL.now()
            self.computed(self.baseline, "search", count)
            took.append(WALL.now() - began)
        rate = few / max(took[2] - took[1], 1e-9)
        most = max(1, int((self.until - WALL.now()) * rate / _TIMES))
        if most >= max(rows.values()):
            return
        note = (
            f"the time is short for a model that computes {rate:,.2g} rows a second: {most:,} rows "
            f"were searched with at most, of {rows['search']:,}, and as many proved on, of "
            f"{rows['final']:,}; more minutes prove more"
        )
        self.parts = self.parts.first(most, note, self.folder / "first")

    def outputs(self, made: Candidate, part: PartName, rows: int | None = None) -> Outputs:
        """Of the first `rows` rows of a part; None: all of them. Of the Forward as given, what it
        was settled with, once; from then on computed anew. Raises TrialError."""
        count = self.parts.rows[part] if rows is None else min(rows, self.parts.rows[part])
        if made.folder is None and count == self.parts.rows[part] and part in self._known:
            return self._known.pop(part)
        found, failed = self.computed(made, part, count)
        if failed:
            row, why = next(iter(failed.items()))
            raise TrialError(
                f"{len(failed)} of the rows that the baseline computes fail; the first, row {row} "
                f"of the {part} part: {why}"
            )
        return found

    @abstractmethod
    def computed(
        self, made: Candidate, part: PartName, rows: int
    ) -> tuple[Outputs, dict[int, str]]:
        """Of the first rows of a part, those that could be computed; and why others could not."""

    def close(self) -> None:
        """Remove what was made."""
        self._known.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def place(self, kind: str) -> Path:
        """A new name in the folder."""
        return self.folder / f"{next(self._count)}.{kind}"
