"""What does `fwd.run` on an artefact add to a bare loop over the same backend?

all-MiniLM-L6-v2 over docstrings, and the digits network over images in memory, lowered to ONNX
Runtime and to OpenVINO. The loop computes the very batches that `fwd.run` chose, whose calibration
is cached; it tokenizes with `tokenizers`, pads, computes, and puts the vectors in their order. Both
open the graph, begin with strings, or with one array, and end with one array. What ours does beside
that counts: sums, golden rows, a tokenizer that is read.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import forwardpass as fwd
from benchmarks.results import machine, publish, quick, rounds, spread, table
from benchmarks.row_throughput import DIGITS
from benchmarks.text_throughput import LONGEST, MODEL, paragraphs
from forwardpass.executing.batches import Batch
from forwardpass.executing.executors import InProcess
from forwardpass.nouns.artefacts import Artefact
from forwardpass.reading.pyfiles import import_file

Values = np.ndarray[Any, Any]
Compute = Callable[[dict[str, Values]], Values]
BACKENDS = ("onnxruntime", "openvino")


class Chosen(NamedTuple):
    """A batch that `fwd.run` chose: places of its rows, and how long its longest is."""

    rows: Values
    longest: int


@contextmanager
def noted(batches: list[Chosen]) -> Iterator[None]:
    """Note the batches that are submitted."""
    original = InProcess.submit

    def submit(self: InProcess, batch: Batch) -> Any:
        if batch.positions is not None:
            batches.append(Chosen(batch.positions, batch.sizes[0] if batch.sizes else 1))
        return original(self, batch)

    InProcess.submit = submit
    try:
        yield
    finally:
        InProcess.submit = original


def on_onnxruntime(artefact: Artefact, folder: Path, output: str) -> Compute:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "graph/graph.onnx"))
    names = {port.path: port.name for port in artefact.lowered.inputs}
    outputs = [port.name for port in artefact.lowered.outputs]
    place = [port.path for port in artefact.lowered.outputs].index(output)
    return lambda batch: session.run(outputs, {names[p]: v for p, v in batch.items()})[place]


def on_openvino(artefact: Artefact, folder: Path, output: str) -> Compute:
    import openvino

    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(folder / "graph/graph.xml", "CPU", hint)
    request = compiled.create_infer_request()
    names = {port.path: port.name for port in artefact.lowered.inputs}
    place = [port.path for port in artefact.lowered.outputs].index(output)
    port = compiled.output(place)

    def compute(batch: dict[str, Values]) -> Values:
        given = {names[path]: value for path, value in batch.items()}
        return request.infer(given, share_inputs=True)[port]

    return compute


OPENED = {"onnxruntime": on_onnxruntime, "openvino": on_openvino}


def texts_by_hand(
    texts: list[str], tokenizer: Any, inputs: list[str], compute: Compute, batches: list[Chosen]
) -> Values:
    encoded = tokenizer.encode_batch(texts)
    vectors = np.empty((len(texts), 384), np.float32)
    for rows, longest in batches:
        batch = {name: np.zeros((len(rows), longest), np.int64) for name in inputs}
        for place, row in enumerate(rows):
            one = encoded[row]
            told = {"input_ids": one.ids, "token_type_ids": one.type_ids, "attention_mask": 1}
            for name in inputs:
                batch[name][place, : len(one.ids)] = told[name]
        vectors[rows] = compute(batch)
    return vectors


def texts(backend: str, root: Path, count: int) -> dict[str, Callable[[], Values]]:
    """A loop by hand and `fwd.run` over paragraphs."""
    from tokenizers import Tokenizer

    out = root / f"texts-{backend}.fwd"
    given = paragraphs(count)
    artefact = fwd.export(f"{MODEL} @ {backend}", out)
    forward = fwd.load(out)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    inputs = [port.path for port in artefact.lowered.inputs]
    rows = [{"text": text} for text in given]

    def run() -> Values:
        return np.asarray(fwd.run(forward, rows)[0]["sentence_embedding"])

    def loop() -> Values:
        compute = OPENED[backend](artefact, out, "sentence_embedding")
        return texts_by_hand(given, tokenizer, inputs, compute, batches)

    batches = _chosen(run)
    return {"loop": loop, "run": run}


def images(backend: str, root: Path, count: int) -> dict[str, Callable[[], Values]]:
    """A loop by hand and `fwd.run` over the digits."""
    digits = import_file(DIGITS)
    pixels = np.ascontiguousarray(np.resize(digits.images()[0], (count, 1, 8, 8)))
    out = root / f"images-{backend}.fwd"
    model = fwd.Model(digits.model.module, "pixels: f32[batch 1 8 8]")
    artefact = fwd.export(fwd.Forward(model) @ backend, out)
    forward = fwd.load(out)

    def run() -> Values:
        return np.asarray(fwd.run(forward, {"pixels": pixels})[0]["output"])

    def loop() -> Values:
        compute = OPENED[backend](artefact, out, "output")
        return np.concatenate([compute({"pixels": pixels[rows]}) for rows in slices])

    slices = [slice(rows[0], rows[-1] + 1) for rows, _ in _chosen(run)]
    return {"loop": loop, "run": run}


def _chosen(run: Callable[[], object]) -> list[Chosen]:
    """The batches of a run, once what its runs find is known, without those that it only tries: of
    their rows others are computed later."""
    batches: list[Chosen] = []
    for _ in range(3):
        batches.clear()
        with noted(batches):
            run()
    seen: set[int] = set()
    kept: list[Chosen] = []
    for batch in reversed(batches):
        if not seen.issuperset(batch.rows.tolist()):
            seen.update(batch.rows.tolist())
            kept.append(batch)
    return sorted(kept, key=lambda batch: int(batch.rows[0]))


def main() -> None:
    hasty = quick(__doc__)
    few, many, times = (64, 5_000, 2) if hasty else (1_024, 400_000, 5)
    kinds: dict[str, tuple[Callable[..., Any], int]] = {
        f"all-MiniLM-L6-v2, {few:,} docstrings": (texts, few),
        f"the digits network, {many:,} images": (images, many),
    }
    lines: list[list[str]] = []
    with tempfile.TemporaryDirectory() as root:
        os.environ["FORWARDPASS_CACHE"] = str(Path(root) / "cache")
        for title, (make, count) in kinds.items():
            for backend in BACKENDS:
                candidates = make(backend, Path(root), count)
                off = float(np.abs(candidates["run"]() - candidates["loop"]()).max())
                seconds = rounds(candidates, times)
                pairs = zip(seconds["run"], seconds["loop"], strict=True)
                rate = count / statistics.median(seconds["loop"])
                added = spread([ours / bare - 1 for ours, bare in pairs], ".1%")
                lines.append([f"{title}, {backend}", f"{rate:,.0f}", added, f"{off:.0e}"])
    method = (__doc__ or "").partition("\n\n")[2].strip()
    about = f"{method} Median of {times} interleaved rounds (least–most), round by round."
    head = ["", "rows/s of the loop", "`fwd.run` adds", "off"]
    told = machine("tokenizers", "onnxruntime", "openvino")
    publish(
        "artefact_throughput", "Artefacts beside a bare loop", [about, table(head, lines), told],
        write=not hasty,
    )  # fmt: skip


if __name__ == "__main__":
    main()
