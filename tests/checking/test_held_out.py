"""Sound models that nobody here wrote raise no alarm: a part of benchmarks/held_out_models.py."""

from __future__ import annotations

from typing import Any

import pytest
from held_out import FAMILIES, REAL, built, moves_by_padding

from forwardpass.checking import check

SOUND = [family for family in FAMILIES if family not in REAL]
LEAKS = [family for family, real in REAL.items() if "pad-leak" in real]


@pytest.mark.parametrize("family", SOUND[::4])
def test_no_error_on_a_family_of_transformers(family: str) -> None:
    module, inputs = built(family)
    grad: Any = ("inference", "on")[SOUND.index(family) // 4 % 2]
    findings = check(module, inputs, grad=grad)
    loud = [f"{f.rule} {f.site} {f.message}" for f in findings if f.severity != "note"]
    assert not loud
    assert not [s for s in findings.skipped if "the rule failed" in s.reason]


@pytest.mark.parametrize("family", LEAKS)
def test_what_is_found_in_others_is_there(family: str) -> None:
    module, inputs = built(family)
    assert moves_by_padding(module, inputs) > 1e-4
    (finding,) = check(module, inputs, rules=["pad-leak"])
    assert finding.severity == "error"
