"""Does every rule of check find what it is for, and nothing on sound models?

Each rule has models with a planted fault and sound twins in tests/checking/planted. A fault counts
as found where the rule points at its line. On a sound twin an error or a warning of any rule is a
false alarm, and so is anything that the rule itself says.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from benchmarks.results import machine, publish, quick, table
from forwardpass.measuring.clocks import WALL

CHECKING = Path(__file__).parent.parent / "tests" / "checking"


def main() -> None:
    hasty = quick(__doc__)
    sys.path[:0] = [str(CHECKING), str(CHECKING.parent)]
    from bench import HEAD, cases, judged, planted, tally

    torch.set_num_threads(1)
    began = WALL.now()
    outcomes = {
        rule: [
            judged(rule, case)
            for case in (cases(rule)[:: len(cases(rule)) - 1] if hasty else cases(rule))
        ]
        for rule in planted()
    }
    took = WALL.now() - began
    method = (__doc__ or "").partition("\n\n")[2].strip()
    parts = [method, table(HEAD, list(tally(outcomes))), f"{took:.0f} s. {machine()}"]
    publish("planted_faults", "Planted faults", parts, write=not hasty)


if __name__ == "__main__":
    main()
