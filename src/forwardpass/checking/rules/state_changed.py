"""state-changed: a forward pass computes; it does not change the model."""

from __future__ import annotations

from collections.abc import Iterable

from forwardpass.checking.subjects import Subject
from forwardpass.nouns.findings import Finding


def check(subject: Subject) -> Iterable[Finding]:
    """What the pass changed of the module's state, by the ledger of the record."""
    for change in subject.record.changes:
        yield subject.finding("warning", change, "write state in the training loop, not in forward")
