"""Gauge: a budget and the labels of the rows that are held against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from forwardpass.nouns.budgets import Keep
from forwardpass.nouns.tunings import Evidence
from forwardpass.tuning.judging import Proof, evidence, proofs, require_kept_by_baseline
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
    _itself: dict[tuple[PartName, int], tuple[Proof, ...]] = field(
        default_factory=dict[tuple[PartName, int], tuple[Proof, ...]]
    )

    def __call__(
        self, baseline: Outputs, came: Outputs, part: PartName, looks: int
    ) -> tuple[Evidence, ...]:
        """Each line of the budget; see `judge`."""
        return evidence(self.keeps, self._proofs(baseline, came, part), looks)

    def require_kept(self, baseline: Outputs, part: PartName) -> None:
        """Raises UsageError where the baseline breaks the budget."""
        require_kept_by_baseline(self.keeps, baseline, self(baseline, baseline, part, 1))

    def _proofs(self, baseline: Outputs, came: Outputs, part: PartName) -> tuple[Proof, ...]:
        """Of the baseline beside itself once: a function of the user's is called hundreds of
        times for that."""
        key = part, len(next(iter(baseline.values()), ()))
        known = self._itself.get(key) if came is baseline else None
        if known is None:
            known = proofs(self.keeps, baseline, came, self._of(part, baseline))
        if came is baseline:
            self._itself[key] = known
        return known

    def _of(self, part: PartName, outputs: Outputs) -> Labels | None:
        labels = self.labels.get(part)
        return None if labels is None else labels.take(range(len(next(iter(outputs.values())))))
