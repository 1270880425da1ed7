"""The verb: its arguments, and the order in which an artefact is written."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from forwardpass.building import Example, golden
from forwardpass.building.engines import save
from forwardpass.errors import DataError, UsageError
from forwardpass.executing import examples
from forwardpass.executing.encoding import EncodedRows, Encoder, checked, inferred, together
from forwardpass.executing.executors import executor
from forwardpass.executing.fitting import FittingRows
from forwardpass.exporting.folders import sums, whole_or_not_there
from forwardpass.loading import load
from forwardpass.loading.artefacts import ArtefactProgram
from forwardpass.loading.described import describe
from forwardpass.measuring.machines import machine
from forwardpass.nouns.artefacts import GRAPH, MANIFEST, READY, Artefact
from forwardpass.nouns.costs import CostTable
from forwardpass.nouns.forwards import Forward, ForwardLike
from forwardpass.nouns.models import Model
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.programs import TRUSTED, Trust
from forwardpass.nouns.rows import Rows
from forwardpass.nouns.signatures import Signature
from forwardpass.preparing.preparing import example_of, ready
from forwardpass.preparing.recipes import Ready
from forwardpass.reading import open_source
from forwardpass.reading.blocks import limited
from forwardpass.tensors.arrays import to_numpy
from forwardpass.tensors.blocks import Block
from forwardpass.tensors.generators import generators_kept

_ROWS: Final = 256
"""Rows of the data that are looked at: enough for common sizes, and for some that are rare."""
_DRAWN: Final = 4
"""Rows drawn of each size, where there are no data."""
_SIZES: Final = (0.4, 1.0, 1.7)
"""Sizes of the variable axes of what is drawn, as shares of an example's."""
_GOLDEN: Final = ((1, 0.25), (3, 0.5), (2, 0.9))
"""Golden batches: how many rows, and around which quantile of their sizes."""


def export(
    forward: ForwardLike, out: str | os.PathLike[str], *, calibrate: object = None
) -> Artefact:
    """Write a Forward as one folder that computes the same without its source.

    The graph is written in the way of the Forward's backend, and tried against the module at sizes
    that it was not made from. Nothing half-written stays, whatever happens.

    Args:
        forward: a reference with its plan, a module, a Model or a Forward. Its backend decides what
            is written: `model.py @ onnxruntime`.
        out: the folder, `NAME.fwd`; it must not be there.
        calibrate: data, as `run` reads them: they say what goes in where the model does not, and
            padding is proved on them, and steps and backends that need data are fitted to all of
            them. Without data rows are drawn by the signature, and nothing is fitted.

    Returns the Artefact: what the folder's manifest says.

    Raises:
        UsageError: names and arguments of the plan; a model without a signature and no data.
            OutputExistsError: `out` is there.
        LoadError: the model. DataError: the data, or the disk.
        BuildError: the backend cannot make it, or makes something else of it.
    """
    folder = Path(out)
    if folder.suffix != ".fwd":
        raise UsageError(f"{folder}: an artefact is a folder NAME.fwd; write -o {folder.name}.fwd")
    loaded = load(forward)
    with generators_kept(), whole_or_not_there(folder) as staging:
        block = _given(_drawn(loaded) if calibrate is None else _encoded(loaded, calibrate))
        signed = Forward(loaded.model.with_signature(block.signature), loaded.plan)
        data = None if calibrate is None else FittingRows(signed.model, calibrate)
        return _written(signed, block, example_of(block)._replace(data=data), staging)


def _written(forward: Forward, block: Block, example: Example, folder: Path) -> Artefact:
    model, plan = forward.model, forward.plan
    saved = save(forward, example, folder / GRAPH)
    encode, decode, code = describe(model, folder)
    classes: list[Trust] = [saved.trust, "code" if code else "data"]
    reasons = [*code, *([saved.why] if saved.trust != "data" else [])]
    golden.write(folder, ((batch, saved.outputs(batch)) for batch in _golden(block)))
    artefact = Artefact(
        name=model.program.name,
        plan=str(plan),
        steps=saved.applied,
        trust=max(classes, key=TRUSTED.index),
        code=tuple(reasons),
        inputs=tuple(map(str, block.signature.inputs)),
        outputs=(),
        lowered=saved.lowered,
        encode=encode,
        decode=decode,
        sha256=model.program.digest(),
        instructions=machine().instructions,
        versions=_versions(saved.replicas[0].facts.library),
        files={},
    )
    learned = _ready(artefact, block, folder)
    (folder / READY).write_bytes(msgspec.json.format(msgspec.json.encode(learned)))
    whole = msgspec.structs.replace(artefact, outputs=learned.outputs, files=sums(folder))
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(whole)))
    return whole


def _ready(artefact: Artefact, block: Block, folder: Path) -> Ready:
    """What is known of the artefact before its first row: outputs, padding, costs."""
    program = ArtefactProgram(folder, artefact)
    forward = Forward(Model(program, block.signature), Plan((), Plan.parse(artefact.plan).backend))
    rows = Rows({"": [None] * len(block)}, np.arange(len(block)), None)
    encoded = EncodedRows(rows, block, np.zeros(len(block), bool), ())
    prepared = ready(forward, [encoded], executor, program.digest(), batch_rows=1)
    assert prepared is not None
    prepared.executor.close()
    # What batches cost is found where they are computed, by the rows that come.
    return msgspec.structs.replace(prepared.ready, origin=None, costs=CostTable(()))


def _encoded(forward: Forward, source: object) -> Block:
    """The first rows of the data, encoded."""
    model = forward.model
    opened = open_source(source, wanted=model.text_columns)
    blocks = limited(opened.read(0), _ROWS)
    done: list[EncodedRows] = []
    for rows in blocks:
        if not len(rows):
            continue
        if model.signature is None and model.collate is None:
            model = model.with_signature(inferred(model, rows, {}))
        done.append(Encoder(model)(rows))
    if not sum(len(part.block) for part in done):
        failures = [failure for part in done for failure in part.failures]
        why = f": {failures[0].error}" if failures else ""
        raise DataError(f"{source}: none of its first {_ROWS} rows can be encoded{why}")
    return _named(forward, together([part.block for part in done]))


def _drawn(forward: Forward) -> Block:
    """Rows drawn by the signature, of several sizes."""
    if forward.model.signature is None:
        examples.drawn(forward)  # raises, and says what to give
    assert forward.model.signature is not None
    signature = _certain(forward.model, forward.model.signature)
    forward = Forward(forward.model.with_signature(signature), forward.plan)
    own = examples.drawn(forward)
    sizes = {
        axis.name: int(size)
        for item in signature.given if item.path in own
        for axis, size in zip(item.axes, own[item.path].shape, strict=True) if axis.is_variable
    }  # fmt: skip
    rows: dict[str, list[Any]] = {}
    for share in _SIZES if sizes else (1.0,):
        axes = {name: _permitted(signature, name, share * size) for name, size in sizes.items()}
        batch = examples.drawn(forward, batch=_DRAWN, axes=axes, seed=len(rows))
        for item in signature.given:
            if item.path in batch:
                value = np.moveaxis(to_numpy(batch[item.path]), item.batch_axis or 0, 0)
                rows.setdefault(item.path, []).extend(value)
    block, _ = checked(signature, rows, len(next(iter(rows.values()))))
    return block


def _certain(model: Model, signature: Signature) -> Signature:
    """The signature of which it is known what is there: a graph takes an input, or does not."""
    optional = [item for item in signature.inputs if item.optional]
    if optional and model.encode is not None and not hasattr(model.encode, "inputs"):
        raise UsageError(
            f"`{optional[0]}` is optional, and its encode alone knows whether it is there: give "
            "--calibrate DATA"
        )
    there: Collection[str] = getattr(model.encode, "inputs", ())
    return Signature(
        tuple(
            msgspec.structs.replace(item, optional=False)
            for item in signature.inputs
            if not item.optional or item.path in there
        ),
        signature.outputs,
    )


def _given(block: Block) -> Block:
    """The same rows, of a signature that has just the inputs that they bring."""
    signature = block.signature
    there = tuple(
        msgspec.structs.replace(item, optional=False)
        for item in signature.inputs
        if item.derivation or item.path in block.values
    )
    return replace(block, signature=Signature(there, signature.outputs))


def _permitted(signature: Signature, name: str, size: float) -> int:
    axis = signature.variable[name]
    found = axis.rounded(max(1, round(size)))
    return found if axis.high is None else min(found, axis.high // axis.multiple * axis.multiple)


def _named(forward: Forward, block: object) -> Block:
    if isinstance(block, Block):
        return block
    raise UsageError(
        f"{forward.model.name} has a collate of its own, and an artefact takes named arrays: say "
        "what goes in with Model(module, inputs=…)"
    )


def _golden(block: Block) -> Iterable[Any]:
    order = np.argsort(block.sizes.prod(axis=1), kind="stable")
    for count, share in _GOLDEN:
        first = int(share * (len(order) - 1))
        rows = block.take(order[[min(first + i, len(order) - 1) for i in range(count)]])
        same = block.take(np.full(count, order[first]))
        padded = all(block.signature.padded(name) for name in block.signature.variable)
        chosen = rows if padded else same
        yield chosen.collate(chosen.sizes.max(axis=0).tolist() if len(chosen) else [])


def _versions(library: str) -> dict[str, str]:
    name, _, number = library.partition(" ")
    return {
        "forwardpass": version("forwardpass"), "python": platform.python_version(), name: number,
    }  # fmt: skip
