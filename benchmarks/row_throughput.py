"""What does `fwd.run` cost beside a bare loop, where rows have one shape and cost microseconds?

The digits network over 8 x 8 images in memory; the loop tries every batch size, `fwd.run` finds its
own. Both end with all outputs in one array.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import forwardpass as fwd
from benchmarks.results import machine, publish, quick, rounds, spread, table
from forwardpass.reading.pyfiles import import_file

DIGITS = Path(__file__).parent.parent / "examples" / "digits.py"
SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


def loop(net: nn.Module, pixels: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """The loop that people write: split, compute, put together."""
    with torch.inference_mode():
        parts = [net(batch) for batch in torch.from_numpy(pixels).split(size)]
        return torch.cat(parts).numpy()


def main() -> None:
    small = quick(__doc__)
    digits = import_file(DIGITS)
    net = digits.model.module
    images, _ = digits.images()
    count = 5_000 if small else 400_000
    pixels = np.ascontiguousarray(np.resize(images, (count, 1, 8, 8)))
    forward = fwd.load(fwd.Model(net, "pixels: f32[batch 1 8 8]"))
    found: dict[str, Any] = {}

    def run() -> None:
        outputs, found["report"] = fwd.run(forward, {"pixels": pixels})
        found["values"] = np.asarray(outputs["output"])

    def looped(size: int) -> Callable[[], object]:
        return lambda: loop(net, pixels, size)

    with tempfile.TemporaryDirectory() as cache:
        os.environ["FORWARDPASS_CACHE"] = cache
        run()  # the calibration is cached from here on
        calibrated = found["report"].seconds.calibrate
        candidates: dict[str, Callable[[], object]] = {f"loop, {n}": looped(n) for n in SIZES}
        candidates["`fwd.run`"] = run
        seconds = rounds(candidates, 1 if small else 5)

    rate = {name: [count / s for s in times] for name, times in seconds.items()}
    middle = {name: statistics.median(values) for name, values in rate.items()}
    best = max((name for name in middle if name.startswith("loop")), key=middle.__getitem__)
    lines = [
        [
            name,
            spread(rate[name]),
            f"{1e6 / middle[name]:.2f}",
            f"{middle[name] / middle[best]:.1%}",
        ]
        for name in candidates
    ]
    report, exact = found["report"], loop(net, pixels, 256)
    off = np.abs(found["values"] - exact).max()
    about = (
        f"The digits network, {count:,} images in memory. Median of {len(seconds[best])} "
        "interleaved rounds (least–most). `fwd.run` chose batches of "
        f"{count / report.batches:,.0f} rows on average; its calibration, cached here, had taken "
        f"{calibrated:.1f} s. Values differ from the loop's by {off:.0e} at most."
    )
    head = ["batch", "rows/s", "µs a row", f"of the best ({best})"]
    publish(
        "row_throughput",
        "Rows of one shape, in memory",
        [about, table(head, lines), machine("numpy")],
        write=not small,
    )


if __name__ == "__main__":
    main()
