"""What do batches of a sentence encoder cost, and how long are texts, to simulate serving on?

all-MiniLM-L6-v2 in fp32 as the engine computes it: batches of 1 to 32 rows of 8 to 256 tokens, in
interleaved rounds, the least of each, so that what else runs does not count. With bytes and tokens
of whole docstrings, which are very different in length. Kept in serving_costs.json.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import forwardpass as fwd
from benchmarks.results import machine, quick, table
from benchmarks.text_throughput import MODEL, STDLIB
from forwardpass.building import Example, build
from forwardpass.executing.batches import Batch
from forwardpass.executing.encoding import Encoder
from forwardpass.executing.executors import InProcess
from forwardpass.measuring.clocks import WALL
from forwardpass.nouns.costs import CostPoint, CostTable
from forwardpass.nouns.rows import Rows
from forwardpass.reading.pyfiles import import_file
from forwardpass.tensors.blocks import Block

PLACE = Path(__file__).parent / "serving_costs.json"
LENGTHS = (8, 16, 32, 64, 128, 256)
ROWS = (1, 2, 4, 8, 16, 32)
MOST_CELLS = 2_048


class Measured(msgspec.Struct, frozen=True):
    """Costs, and (bytes, tokens) of real texts, of one machine."""

    machine: str
    costs: CostTable
    texts: list[tuple[int, int]]


def docstrings(number: int) -> list[str]:
    """`number` different docstrings of the standard library, whole, in random order."""
    every = sorted({" ".join(row["text"].split()) for row in import_file(STDLIB).docs()})
    return random.Random(0).sample(every, number)


def measured(rounds: int, number: int) -> Measured:
    forward = fwd.load(MODEL)
    texts = docstrings(number)
    words = np.array(texts, dtype=object)
    block = Encoder(forward.model)(Rows({"text": words}, np.arange(len(texts)))).block
    assert isinstance(block, Block)
    tokens = block.sizes[:, 0]
    longest = block.take(np.array([int(tokens.argmax())]))
    example = Example(block.signature, longest.collate((int(tokens.max()),)))
    executor = InProcess(build(forward, example))
    runs: list[Callable[[], float]] = []
    shapes: list[tuple[int, int]] = []
    for length in LENGTHS:
        near = int(np.abs(tokens - length).argmin())
        cells = int(tokens[near])
        for rows in ROWS:
            if rows * cells > MOST_CELLS:
                continue
            batch = Batch(block.take(np.full(rows, near)), (cells,), cells, 0)
            shapes.append((rows, cells))
            runs.append(lambda batch=batch: WALL.seconds(lambda: executor.submit(batch).result()))
    seconds = WALL.least(*runs, rounds=rounds)
    points = [
        CostPoint(rows, {"tokens": cells}, cells, took)
        for (rows, cells), took in zip(shapes, seconds, strict=True)
    ]
    pairs: list[Any] = [
        (len(text.encode()), int(count)) for text, count in zip(texts, tokens, strict=True)
    ]
    return Measured(machine("transformers"), CostTable(tuple(points)), pairs)


def known() -> Measured:
    return msgspec.json.decode(PLACE.read_bytes(), type=Measured)


def main() -> None:
    small = quick(__doc__)
    found = measured(1 if small else 15, 64 if small else 2_000)
    lines = [
        [
            f"{point.rows} × {point.cells}",
            f"{1e3 * point.seconds:.1f}",
            f"{1e6 * point.seconds / (point.rows * point.cells):.0f}",
        ]
        for point in found.costs.points
    ]
    print(table(["rows × tokens", "ms", "µs a token"], lines))
    if not small:
        PLACE.write_bytes(msgspec.json.encode(found) + b"\n")


if __name__ == "__main__":
    main()
