"""Does diff name the layer that made a difference, first?

A difference of seven kinds is planted into copies of eleven models, at a layer drawn by lot: a
weight is perturbed, a layer works in bfloat16, a normalisation has another epsilon, a square weight
is transposed, an activation is missing, a block is dropped, a linear layer keeps its weight in
eight bits. Named first is the layer with the largest error made here. All layers of a fresh
nn.TransformerEncoder hold the same numbers: there nobody can say which one is gone.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import torch

import forwardpass as fwd
from benchmarks.results import machine, publish, quick, table
from forwardpass.measuring.clocks import WALL

COMPARING = Path(__file__).parent.parent / "tests" / "comparing"


def main() -> None:
    hasty = quick(__doc__)
    sys.path.insert(0, str(COMPARING))
    from differences import planted

    torch.set_num_threads(1)
    there: Counter[str] = Counter()
    named: Counter[str] = Counter()
    began = WALL.now()
    for case in list(planted())[:: 10 if hasty else 1]:
        kind = case.name.rpartition(" in ")[0]
        found = fwd.diff(case.a, case.b, case.inputs, grad="off", expanded=True)
        there[kind] += 1
        named[kind] += found.guilty is not None and found.guilty.path == case.guilty
        print(f"{case.name}: {found.guilty.path if found.guilty else 'nobody'}", file=sys.stderr)
    took = WALL.now() - began
    lines = [[kind, str(there[kind]), str(named[kind])] for kind in there]
    lines.append(["**all**", str(there.total()), str(named.total())])
    publish(
        "planted_differences",
        "Planted differences",
        [
            (__doc__ or "").partition("\n\n")[2].strip(),
            table(["planted", "models", "named first"], lines),
            f"{took:.0f} s. {machine('transformers')}",
        ],
        write=not hasty,
    )


if __name__ == "__main__":
    main()
