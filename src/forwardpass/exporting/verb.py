"""The verb: its arguments, and the order in which an artefact is written."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Collection, Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from forwardpass.batching.windows import WINDOW
from forwardpass.building import Example, golden
from forwardpass.building.engines import save
from forwardpass.building.opening import this_platform
from forwardpass.errors import BuildError, DataError, UsageError
from forwardpass.executing import examples
from forwardpass.executing.encoding import EncodedRows, Encoder, checked, inferred, together
from forwardpass.executing.executors import executor
from forwardpass.executing.fitting import FittingRows
from forwardpass.exporting.bare import Format, files_of, planned, take
from forwardpass.exporting.folders import staged, sums, whole_or_not_there
from forwardpass.exporting.rounding import rounding
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
from forwardpass.preparing.recipes import Learned
from forwardpass.reading import open_source
from forwardpass.reading.blocks import limited
from forwardpass.tensors.arrays import to_numpy
from forwardpass.tensors.blocks import Block
from forwardpass.tensors.generators import generators_kept

_LOG: Final = logging.getLogger("forwardpass")
_ROWS: Final = 256
"""Rows of the data that are looked at: enough for common sizes, and for some that are rare."""
_DRAWN: Final = 4
"""Rows drawn of each size, where there are no data."""
_SIZES: Final = (0.4, 1.0, 1.7)
"""Sizes of the variable axes of what is drawn, as shares of an example's."""
_TIMED: Final = 1024
"""Rows that batches are timed on; a run goes on where that was too few."""
_GOLDEN: Final = ((3, 0.25), (1, 0.9))
"""Golden batches: how many rows, and around which quantile of their sizes. Several and one, small
and large; no more, since whoever opens the artefact waits for them."""


def export(
    forward: ForwardLike,
    out: str | os.PathLike[str],
    *,
    calibrate: object = None,
    format: Format | None = None,
) -> Artefact:
    """Write a Forward as one folder that computes the same without its source.

    The graph is written in the way of the Forward's backend, and tried against the module at sizes
    that it was not made from. Nothing half-written stays, whatever happens. What is at work is
    logged by the logger `forwardpass`.

    Args:
        forward: a reference with its plan, a module, a Model or a Forward. Its backend decides what
            is written: `model.py @ onnxruntime`.
        out: the folder, `NAME.fwd`; it must not be there.
        calibrate: data, as `run` reads them: they say what goes in where the model does not;
            padding is proved on them, batches are timed, and steps and backends that need data are
            fitted to all of them. Without data rows are drawn by the signature, and nothing is
            fitted.
        format: "onnx", "openvino", "pt2" or "torchscript": write that standard file alone to `out`,
            with nothing that goes around the graph. The forward then needs no backend.

    Returns the Artefact: what the folder's manifest says, or would.

    Raises:
        UsageError: names and arguments of the plan; a model without a signature and no data; an
            artefact, which is exported already; a format that is not the backend's.
            OutputExistsError: `out` is there.
        LoadError: the model. DataError: the data, or the disk.
        BuildError: the backend cannot make it, or makes something else of it.
    """
    path = Path(out)
    if format is None and path.suffix != ".fwd":
        raise UsageError(f"{path}: an artefact is a folder NAME.fwd; write -o {path.name}.fwd")
    loaded = load(forward)
    if isinstance(loaded.model.program, ArtefactProgram):
        raise UsageError(
            f"{loaded.model.name} is an artefact already: copy the folder, or export the model "
            "that it was made from again"
        )
    if format is not None:
        whole = Forward(loaded.model, planned(loaded.plan, format, path))
        with generators_kept(), staged(*files_of(path, format)) as staging:
            signed, block, example = _prepared(whole, calibrate)
            graph = Model(signed.model.program, signed.model.signature)
            artefact = _written(Forward(graph, signed.plan), block, example, staging)
            return take(artefact, staging, format, path)
    with generators_kept(), whole_or_not_there(path) as staging:
        return _written(*_prepared(loaded, calibrate), staging)


def _prepared(forward: Forward, calibrate: object) -> tuple[Forward, Block, Example]:
    """The Forward with a signature that says what is there, and what it is built from."""
    block = _given(_drawn(forward) if calibrate is None else _encoded(forward, calibrate))
    signed = Forward(forward.model.with_signature(block.signature), forward.plan)
    data = None if calibrate is None else FittingRows(signed.model, calibrate)
    return signed, block, example_of(block)._replace(data=data)


def _written(forward: Forward, block: Block, example: Example, folder: Path) -> Artefact:
    model, plan = forward.model, forward.plan
    _LOG.info("building")
    saved = save(forward, example, folder / GRAPH)
    broken = next((done for done in saved.applied if not done.stays_finite), None)
    if broken is not None:
        raise BuildError(
            f"{broken.step}: {broken.did}, and outputs are no longer finite. `fwd diff` of the "
            "model without and with it says in which layer; leave that out by `where`"
        )
    encode, decode, code = describe(model, folder)
    classes: list[Trust] = [saved.trust, "code" if code else "data"]
    reasons = [*code, *([saved.why] if saved.trust != "data" else [])]
    _LOG.info("golden rows")
    batches = list(_golden(block))
    golden.write(folder, ((batch, saved.outputs(batch)) for batch in batches))
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
        rounding=rounding(model, batches[-1]),
        platform=this_platform(),
        instructions=machine().instructions,
        versions=_versions(saved.replicas[0].facts.library),
        files={},
    )
    learned = _learned(artefact, model, block, folder, timed=example.data is not None)
    (folder / READY).write_bytes(msgspec.json.format(msgspec.json.encode(learned)))
    whole = msgspec.structs.replace(artefact, outputs=learned.outputs, files=sums(folder))
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(whole)))
    return whole


def _learned(
    artefact: Artefact, model: Model, block: Block, folder: Path, *, timed: bool
) -> Learned:
    """What is known of the artefact before its first row: outputs, padding, and what batches of the
    user's own rows cost."""
    program = ArtefactProgram(folder, artefact)
    forward = Forward(Model(program, block.signature), Plan((), Plan.parse(artefact.plan).backend))
    if timed:  # a few rows say how long rows are; for larger batches they come again
        most = (WINDOW.bytes or 0) * len(block) // max(1, block.bytes)
        block = block.take(
            np.resize(np.arange(len(block)), max(len(block), min(most, WINDOW.rows)))
        )
    rows = Rows({"": [None] * len(block)}, np.arange(len(block)), None)
    encoded = EncodedRows(rows, block, np.zeros(len(block), bool), ())
    _LOG.info("timing batches" if timed else "what comes out")
    prepared = ready(
        forward, [encoded], executor, program.digest(), batch_rows=None if timed else 1,
        made_of=model,
    )  # fmt: skip
    assert prepared is not None
    prepared.executor.close()
    known = msgspec.structs.asdict(prepared.ready)
    known |= {"origin": None, "costs": known["costs"] if timed else CostTable(())}
    return Learned(**known, trials=prepared.trials)


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
