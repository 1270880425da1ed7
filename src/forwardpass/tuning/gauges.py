"""Gauge: a budget and the labels of the rows that are held against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forwardpass.nouns.budgets import Keep
from forwardpass.nouns.tunings import Evidence
from forwardpass.tuning.judging import judge, require_kept_by_baseline
from forwardpass.tuning.labels import Labels
from forwardpass.tuning.workshops import Outputs, PartName


@dataclass(frozen=True)
class Gauge:
    """Judges outputs of the first rows of a part.

    Attributes:
        labels: of all rows of a part; empty where there are none.
    """

    keeps: tuple[Keep, ...]
    labels: Mapping[PartName, Labels]

    def __call__(
        self, baseline: Outputs, came: Outputs, part: PartName, looks: int
    ) -> tuple[Evidence, ...]:
        """Each line of the budget; see `judge`."""
        return judge(self.keeps, baseline, came, self._of(part, baseline), looks=looks)

    def require_kept(self, baseline: Outputs, part: PartName) -> None:
        """Raises UsageError where the baseline breaks the budget."""
        require_kept_by_baseline(self.keeps, baseline, self._of(part, baseline))

    def _of(self, part: PartName, outputs: Outputs) -> Labels | None:
        labels = self.labels.get(part)
        return None if labels is None else labels.take(range(len(next(iter(outputs.values())))))
