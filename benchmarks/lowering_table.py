"""Which families of models can be lowered to which backend, and do they compute the same there?

Twelve families, small and with random weights, are exported to each backend, unquantized; the
artefact is opened and computes batches of sizes that the export never tried (one row, other
batches, the shortest and the longest rows, padded ones among them) beside the plain module. An
entry is right where every real value lies within 1e-3 of the largest output and every shape is the
module's. Then artefacts that are data answer in a fresh process that can import neither
transformers nor these models, nor, of ONNX Runtime and OpenVINO, torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import forwardpass as fwd
from benchmarks.lowering_models import FAMILIES
from benchmarks.results import machine, publish, quick, table
from forwardpass.building import build
from forwardpass.measuring.clocks import WALL
from forwardpass.nouns.signatures import Output, Signature
from forwardpass.tensors.blocks import Block, cut
from forwardpass.tensors.distances import apart
from forwardpass.tensors.trees import flatten

BACKENDS = ("eager", "inductor", "aot", "onnxruntime", "openvino", "torchscript")
COMPILERS = ("inductor", "aot")
TORCHLESS = ("onnxruntime", "openvino")
FAR = 1e-3
ROWS = (1, 4, 17)
"""Rows of a batch; exports try 1, 2, and a few more than they were made from."""


@dataclass
class Entry:
    """What came of a family on a backend.

    Attributes:
        verdict: "works", "refuses" or "WRONG". said: why, in a sentence; empty where it works.
        distance: the largest of any batch. trust, route: of the artefact. seconds: all of it took.
        alone: what the artefact answered in a process of its own; empty where that was not asked.
    """

    verdict: str
    said: str = ""
    distance: float = 0.0
    trust: str = ""
    route: str = ""
    seconds: float = 0.0
    alone: str = ""
    folder: Path = field(default_factory=Path)


def entry(make: Callable[[], fwd.Model], backend: str, folder: Path) -> Entry:
    """Export a family to a backend, into `folder`, and compute beside a module of its own."""
    try:
        artefact = fwd.export(fwd.Forward(make()) @ backend, folder)
    except fwd.ForwardpassError as error:
        return Entry("refuses", str(error))
    except Exception as error:  # noqa: BLE001 - a raw error is what must not be
        return Entry("WRONG", f"export raised {type(error).__name__}: {error}")
    made = Entry(
        "works", trust=artefact.trust, route=artefact.lowered.route, folder=folder,
    )  # fmt: skip
    model = make()
    module, signature = model.module.eval(), _signature(artefact)
    engine = build(fwd.load(folder, trust="native"), next(batches(model, signature)).padded)
    for batch in batches(model, signature):
        try:
            came = engine(batch.padded)
        except Exception as error:  # noqa: BLE001 - whatever it is, the axis was to stay dynamic
            return Entry("WRONG", f"{batch.said} is refused: {type(error).__name__}: {error}")
        expected = batch.computed(module)
        for output in signature.outputs:
            one, other = torch.as_tensor(came[output.path]), expected[output.path]
            if one.shape != other.shape:
                said = f"{batch.said}: {output.path} {list(one.shape)}, not {list(other.shape)}"
                return Entry("WRONG", said)
            distance = max(map(apart, batch.real(one, output), batch.real(other, output)))
            made.distance = max(made.distance, distance)
            if distance > FAR:
                return Entry("WRONG", f"{batch.said}: {output.path} {distance:.0e} away")
    return made


@dataclass(frozen=True)
class Sample:
    """A batch of rows, most of them shorter than the longest where the signature has `pad`."""

    block: Block
    sizes: dict[str, int]

    @property
    def said(self) -> str:
        return " × ".join([f"{len(self.block)} rows", *(f"{n}={s}" for n, s in self.sizes.items())])

    @property
    def padded(self) -> dict[str, np.ndarray[Any, Any]]:
        return self.block.collate(list(self.sizes.values()))

    def computed(self, module: torch.nn.Module) -> dict[str, torch.Tensor]:
        """What the module itself makes of it."""
        tensors = {path: torch.from_numpy(value) for path, value in self.padded.items()}
        with torch.inference_mode():
            if len(tensors) == 1:
                return flatten(module(*tensors.values()))
            return flatten(module(**tensors))

    def real(self, value: torch.Tensor, output: Output) -> list[torch.Tensor]:
        """The rows of an output without padding."""
        axes = self.block.signature.variable
        lengths = [dict(zip(axes, map(int, row), strict=True)) for row in self.block.lengths]
        left = self.block.signature.padded_left
        return [torch.as_tensor(row) for row in cut(value, output.extents, lengths, left)]


def batches(model: fwd.Model, signature: Signature) -> Iterator[Sample]:
    """Rows at the least and the greatest sizes that the signature permits, and between."""
    for place, share in enumerate((1.0, 0.0, 0.37) if signature.variable else (1.0,)):
        sizes = {
            name: axis.rounded(axis.low + round(share * ((axis.high or 64) - axis.low)))
            for name, axis in signature.variable.items()
        }
        for count in ROWS:
            yield Sample(rows(signature, count, sizes, seed=31 * place + count), sizes)


def rows(signature: Signature, count: int, sizes: Mapping[str, int], seed: int) -> Block:
    """Rows of these sizes; shorter ones, but for the last, where the signature says how to pad."""
    generator = np.random.default_rng(seed)
    padded = [signature.padded(name) for name in sizes]
    lengths = np.tile(np.array(list(sizes.values()), np.int64), (count, 1))
    for place, axis in enumerate(signature.variable.values()):
        if padded[place]:
            lengths[:-1, place] = generator.integers(axis.low, lengths[0, place] + 1, count - 1)
    values: dict[str, Any] = {}
    for item in signature.given:
        each: list[np.ndarray[Any, Any]] = []
        for row in lengths:
            own = dict(zip(sizes, map(int, row), strict=True))
            shape = [own[a.name] if a.is_variable else a.size for a in item.row_axes]
            if item.dtype == "f32":
                each.append(generator.normal(size=shape).astype(np.float32))
            else:
                words = 2 if "type" in item.path else 99
                each.append(generator.integers(1 if words > 2 else 0, words, shape))
        values[item.path] = each
    return Block(signature, values, lengths, lengths)


def _signature(artefact: fwd.Artefact) -> Signature:
    return Signature.parse(artefact.inputs, artefact.outputs)


ALONE = """
import json, sys
refused = set(json.loads(sys.argv[1]))

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in refused:
            raise ImportError(f"{name} is not to be imported here")

sys.meta_path.insert(0, Refusing())
import numpy as np
import forwardpass as fwd
given = np.load(sys.argv[3])
rows = [{} for _ in range(int(given["count"]))]
for name in given.files:
    if name != "count":
        path, place = name.rsplit(" ", 1)
        rows[int(place)][path] = given[name]
outputs, _ = fwd.run(sys.argv[2], rows)
np.savez(sys.argv[4], **{f"{p} {i}": v for p, c in outputs.items() for i, v in enumerate(c)})
"""


def alone(made: Entry, make: Callable[[], fwd.Model], backend: str, work: Path) -> str:
    """What an artefact answers in a fresh process: "answers", or what went wrong.

    Rows go through `fwd.run` there; each must be as the plain module computes it alone.
    """
    model = make()
    signature = _signature(fwd.load(made.folder).model.program.artefact)  # type: ignore[attr-defined]
    sizes = {
        name: axis.rounded((axis.high or 64) // 2) for name, axis in signature.variable.items()
    }
    block = rows(signature, 5, sizes, seed=7)
    named = {
        f"{path} {i}": row for path, each in block.values.items() for i, row in enumerate(each)
    }
    given, came = work / "rows.npz", work / "outputs.npz"
    np.savez(given, count=len(block), **named)  # pyright: ignore[reportArgumentType]
    refused = ["transformers", "benchmarks", *(["torch"] if backend in TORCHLESS else [])]
    command = [sys.executable, "-c", ALONE, json.dumps(refused), made.folder, given, came]
    kept = {**os.environ, "FORWARDPASS_CACHE": str(work / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=work, env=kept)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
    module, answers = model.module.eval(), np.load(came)
    for place in range(len(block)):
        one = Sample(block.take(np.array([place])), {})
        own = dict(zip(signature.variable, map(int, block.sizes[place]), strict=True))
        expected = Sample(one.block, own).computed(module)
        for output in signature.outputs:
            value = torch.from_numpy(np.asarray(answers[f"{output.path} {place}"]))
            distance = apart(value, expected[output.path].squeeze(output.batch_axis))
            if distance > FAR:
                return f"row {place}: {output.path} is {distance:.0e} away"
    return "answers"


def cell(made: Entry, note: int) -> str:
    if made.verdict == "works":
        return f"{made.distance:.0e} {made.trust}"
    return f"**{made.verdict}** ({note})"


def lines_of(
    entries: Mapping[tuple[str, str], Entry], families: Sequence[str], backends: Sequence[str]
) -> tuple[list[list[str]], list[str]]:
    """The rows of the table, and the notes under it."""
    lines: list[list[str]] = []
    notes: list[str] = []
    for family in families:
        own = {backend: entries[family, backend] for backend in backends}
        line = [family]
        for backend, made in own.items():
            if made.said:
                notes.append(f"{len(notes) + 1}. {family} @ {backend}: {made.said}")
            line.append(cell(made, len(notes)))
        fresh = [backend for backend, made in own.items() if made.alone == "answers"]
        lines.append([*line, ", ".join(fresh) or "**none**"])
        notes += [
            f"{len(notes) + 1}. {family} @ {backend} does not answer alone: {made.alone}"
            for backend, made in own.items()
            if made.alone not in ("", "answers")
        ]
    return lines, notes


def main() -> None:
    hasty = quick(__doc__)
    torch.set_num_threads(1)
    families = ("cnn", "bert", "lstm") if hasty else tuple(FAMILIES)
    backends = tuple(b for b in BACKENDS if not (hasty and b in COMPILERS))
    entries: dict[tuple[str, str], Entry] = {}
    with tempfile.TemporaryDirectory() as root:
        os.environ["FORWARDPASS_CACHE"] = str(Path(root) / "cache")
        for family in families:
            for backend in backends:
                folder = Path(root) / f"{family}-{backend}.fwd"
                began = WALL.now()
                made = entry(FAMILIES[family], backend, folder)
                if made.verdict == "works" and made.trust == "data":
                    made.alone = alone(made, FAMILIES[family], backend, Path(root))
                made.seconds = WALL.now() - began
                entries[family, backend] = made
                print(f"{family} @ {backend}: {made}", flush=True)
    lines, notes = lines_of(entries, families, backends)
    counts = Counter(made.verdict for made in entries.values())
    method = (__doc__ or "").partition("\n\n")[2].strip()
    summary = (
        f"{len(entries)} entries: {counts['works']} work ({counts['works'] / len(entries):.0%}), "
        f"{counts['refuses']} refuse, {counts['WRONG']} are wrong in silence. Of an entry that "
        "works: the largest distance, as a share of the largest output, and the class of trust."
    )
    head = ["", *backends, "answers alone as data"]
    took = f"{sum(made.seconds for made in entries.values()):.0f} s."
    told = f"{took} {machine('transformers', 'onnxruntime', 'openvino')}"
    parts = [method, summary, table(head, lines), *(["\n".join(notes)] if notes else []), told]
    publish("lowering_table", "Families of models on each backend", parts, write=not hasty)


if __name__ == "__main__":
    main()
