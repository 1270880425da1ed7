"""What do a few rows cost beside the pass that computes them: read, encoded, collated, submitted?

An MLP of 64, 128 and 10 features whose bare pass over 16 rows takes microseconds, so that every
microsecond of ours shows; one operator thread. Rows come as lists of numbers, as one array, as one
tensor, and as a tensor a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

import forwardpass as fwd
from benchmarks.results import machine, publish, quick, table
from forwardpass.building import Example, build
from forwardpass.executing.batches import Batch
from forwardpass.executing.encoding import EncodedRows, Encoder
from forwardpass.executing.executors import InProcess
from forwardpass.measuring.clocks import measure
from forwardpass.measuring.timings import ratio
from forwardpass.nouns.rows import Rows
from forwardpass.reading import open_source
from forwardpass.tensors.blocks import Block

ROWS = 16


def encoding(net: nn.Module, given: Any) -> Callable[[], EncodedRows]:
    """Encoding rows for which the user's encode gives these values."""
    model = fwd.Model(net, "features: f32[batch 64]", encode=lambda _: {"features": given})
    encoder, count = Encoder(model), len(given)
    rows = Rows({"row": np.arange(count)}, np.arange(count))
    return lambda: encoder(rows)


def main() -> None:
    small = quick(__doc__)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).eval()
    tensor = torch.randn(ROWS, 64)
    values, lists = tensor.numpy(), tensor.tolist()
    model = fwd.Model(net, "features: f32[batch 64]", "output: f32[batch 10]")
    block = encoding(net, values)().block
    assert isinstance(block, Block)
    executor = InProcess(build(fwd.load(model), Example(model.signature, block.collate(()))))
    batch = Batch(block, (), 1, 0)

    def bare() -> torch.Tensor:
        with torch.inference_mode():
            return net(tensor)

    calls: dict[str, Callable[[], object]] = {
        "the bare pass over 16 rows": bare,
        "read 1 row out of a list": lambda: list(open_source([{"features": lists[0]}]).read()),
        "read 16 rows out of a list": lambda: list(
            open_source([{"features": row} for row in lists]).read()
        ),
        "encode 1 row, a list": encoding(net, lists[:1]),
        "encode 1 row, an array": encoding(net, values[:1]),
        "encode 1 row, a tensor": encoding(net, tensor[:1]),
        "encode 16 rows, lists": encoding(net, lists),
        "encode 16 rows, one array": encoding(net, values),
        "encode 16 rows, one tensor": encoding(net, tensor),
        "encode 16 rows, a tensor a row": encoding(net, list(tensor)),
        "collate 16 rows": lambda: block.collate(()),
        "submit 16 rows": lambda: executor.submit(batch).result(),
    }
    timings = measure(calls, budget_seconds=0.2 if small else 8.0, max_rounds=2_000)
    passed = timings["the bare pass over 16 rows"]
    lines = [
        [name, f"{1e6 * t.median:.1f} ({1e6 * t.low:.1f}–{1e6 * t.high:.1f})", times]
        for name, t in timings.items()
        for times in [f"{ratio(t, passed).median:.2f}"]
    ]
    about = (
        f"An MLP of 64, 128 and 10 features in float32. Medians of {len(passed.samples):,} "
        "interleaved rounds, with their 95 % intervals. Submitting collates, computes and checks."
    )
    publish(
        "small_batches",
        "A few rows, beside the pass that computes them",
        [about, table(["", "µs", "of the bare pass"], lines), machine("numpy")],
        write=not small,
    )


if __name__ == "__main__":
    main()
