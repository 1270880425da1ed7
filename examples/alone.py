"""An artefact, computed where neither PyTorch nor what it was made from can be imported.

    fwd export "examples/reader.py @ onnxruntime" -o digits.fwd
    python examples/alone.py digits.fwd digits.npz

The rows have the pixels of digits, and their labels.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import Any

GONE = ("torch", "sklearn", "transformers", "digits", "examples")


class Gone(MetaPathFinder):
    """Refuses to import what the artefact must do without."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname.partition(".")[0] in GONE:
            raise ModuleNotFoundError(f"{fullname} is not to be had here", name=fullname)


def main(artefact: str, data: str) -> None:
    """Compute every row, and say how many are right."""
    sys.meta_path.insert(0, Gone())
    import forwardpass as fwd

    outputs, report = fwd.run(artefact, data, keep=["label"])
    right = sum(map(int, outputs["digit"] == outputs["label"]))
    print(
        f"{right} of {report.rows} digits are right, by {artefact} alone: {right / report.rows:.1%}"
    )
    loaded = [name for name in GONE if name in sys.modules]
    print(f"imported of {', '.join(GONE)}: {', '.join(loaded) or 'nothing'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
