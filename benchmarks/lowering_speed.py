"""Which backend computes a pass sooner than eager does, and by how much?

Engines of ours beside each other, in one run, all with the same number of threads: all-MiniLM-L6-v2
over batches of docstrings sorted by length, about 1,024 tokens each, and a network of the shape of
ResNet-18 over 8 images of 112 x 112. Batches are padded beforehand; everything is built, and has
computed each batch once, before it is timed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import forwardpass as fwd
from benchmarks.results import machine, publish, quick, table
from benchmarks.text_throughput import CELLS, MODEL, paragraphs
from forwardpass.building import Engine
from forwardpass.executing.encoding import Encoder
from forwardpass.measuring.clocks import measure
from forwardpass.measuring.timings import Timing, ratio
from forwardpass.nouns.rows import Rows
from forwardpass.preparing.preparing import built
from forwardpass.tensors.blocks import Block

Batch = dict[str, np.ndarray[Any, Any]]
LOWERED = ("inductor", "aot", "onnxruntime", "openvino", "torchscript")
INT8 = "openvino(quantize=int8)"


def texts(forward: fwd.Forward, count: int, most: int) -> tuple[Block, list[Batch]]:
    """Encoded docstrings, and at most `most` padded batches of neighbours in length."""
    given = [{"text": text} for text in paragraphs(count)]
    rows = Rows({"text": [row["text"] for row in given]}, np.arange(count), None)
    block = Encoder(forward.model)(rows).block
    assert isinstance(block, Block)
    order = np.argsort(block.sizes[:, 0], kind="stable")
    found: list[Batch] = []
    while len(order):
        longest = int(block.sizes[order[-1], 0])
        size = max(1, CELLS // longest)
        chosen, order = order[-size:], order[:-size]
        found.append(block.take(chosen).collate([longest]))
    return block, found[:: max(1, len(found) // most)]


def images(count: int) -> tuple[fwd.Forward, Block, list[Batch]]:
    """A network of the shape of ResNet-18, with random weights, and a batch for it."""
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"
    )
    module = ResNetForImageClassification(config).eval()
    model = fwd.Model(module, "pixel_values: f32[batch 3 112 112]", origin="ResNet-18")
    assert model.signature is not None
    pixels = np.random.default_rng(0).normal(size=(count, 3, 112, 112)).astype(np.float32)
    none = np.zeros((count, 0), np.int64)
    block = Block(model.signature, {"pixel_values": pixels}, none, none)
    return fwd.Forward(model), block, [block.collate([])]


def over(engine: Engine, given: Sequence[Batch]) -> Callable[[], None]:
    def computed() -> None:
        for batch in given:
            engine(batch)

    return computed


def engines(
    forward: fwd.Forward, block: Block, backends: Sequence[str], threads: int, root: Path
) -> tuple[dict[str, Engine], dict[str, str]]:
    """The engine of each backend, and what those said that could not be built."""
    found: dict[str, Engine] = {}
    refused: dict[str, str] = {}
    for backend in backends:
        name, _, more = backend.removesuffix(")").partition("(")
        text = f"{name}({', '.join([*([more] if more else []), f'threads={threads}'])})"
        try:
            if not more:
                found[backend] = built(forward @ text, block)
            else:  # it needs data, which export has
                out = root / f"{forward.model.program.name}-{name}.fwd"
                fwd.export(forward @ text, out, calibrate=dict(block.values))
                found[backend] = built(fwd.load(out), block)
        except fwd.ForwardpassError as error:
            refused[backend] = str(error)
        print(f"built: {backend}", flush=True)
    return found, refused


def compared(
    title: str, given: Sequence[Batch], found: dict[str, Engine], refused: dict[str, str],
    seconds: float,
) -> list[str]:  # fmt: skip
    calls = {name: over(engine, given) for name, engine in found.items()}
    for call in calls.values():
        call()  # sizes are compiled before they are timed
    times = measure(calls, budget_seconds=seconds)
    expected = found["eager"](given[0])
    lines = [
        [name, *_line(times[name], times["eager"]), f"{_off(found[name](given[0]), expected):.0e}"]
        for name in found
    ]
    lines += [[name, "refused", "", ""] for name in refused]
    rounds = len(times["eager"].samples)
    about = (
        f"{title}. Median of {rounds} interleaved rounds (95 % interval by bootstrap). Off: the "
    )
    parts = [f"{about}largest difference of the first batch, as a share of the largest output."]
    parts.append(table(["", "ms", "× eager", "off"], lines))
    return parts + [f"{name}: {said}" for name, said in refused.items()]


def _line(own: Timing, eager: Timing) -> list[str]:
    times = ratio(eager, own)
    middle = f"{1e3 * own.median:.1f} ({1e3 * own.low:.1f}–{1e3 * own.high:.1f})"
    return [middle, f"{times.median:.2f} ({times.low:.2f}–{times.high:.2f})"]


def _off(came: dict[str, Any], expected: dict[str, Any]) -> float:
    pairs = [(np.asarray(came[name]), np.asarray(expected[name])) for name in expected]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def main() -> None:
    hasty = quick(__doc__)
    threads = torch.get_num_threads()
    lowered = ("onnxruntime", "openvino") if hasty else LOWERED
    parts: list[str] = []
    with tempfile.TemporaryDirectory() as root:
        forward = fwd.load(MODEL)
        block, given = texts(forward, 128 if hasty else 1_536, 4 if hasty else 24)
        found, refused = engines(forward, block, ("eager", *lowered), threads, Path(root))
        cells = sum(batch["input_ids"].size for batch in given)
        title = f"all-MiniLM-L6-v2, f32, {len(given)} batches, {cells:,} padded tokens"
        parts += compared(title, given, found, refused, 2 if hasty else 240)
        forward, block, given = images(8)
        found, refused = engines(forward, block, ("eager", *lowered, INT8), threads, Path(root))
        title = "ResNet-18 with random weights, 8 × 3 × 112 × 112"
        parts += compared(title, given, found, refused, 2 if hasty else 60)
    told = f"{threads} threads each. {machine('transformers', 'onnxruntime', 'openvino')}"
    publish("lowering_speed", "Backends beside eager", [*parts, told], write=not hasty)


if __name__ == "__main__":
    main()
