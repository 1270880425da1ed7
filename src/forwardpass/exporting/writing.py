"""A Forward and rows that are encoded → the folder of an artefact."""

from __future__ import annotations

import logging
import platform
import shutil
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from forwardpass.building import Example, golden
from forwardpass.building.engines import save
from forwardpass.building.opening import this_platform
from forwardpass.building.replicas import FullGraph
from forwardpass.errors import BuildError
from forwardpass.executing.executors import executor
from forwardpass.executing.fitting import FittingBlock
from forwardpass.exporting.folders import sums, whole_or_not_there
from forwardpass.exporting.rounding import rounding
from forwardpass.loading.artefacts import ArtefactProgram
from forwardpass.loading.described import describe
from forwardpass.measuring.machines import machine
from forwardpass.nouns.artefacts import GRAPH, MANIFEST, READY, Artefact
from forwardpass.nouns.costs import CostTable
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.programs import TRUSTED, Trust
from forwardpass.nouns.signatures import Signature
from forwardpass.preparing.preparing import example_of, ready
from forwardpass.preparing.recipes import Learned
from forwardpass.preparing.sizing import SIZING_SECONDS, alone, recurring
from forwardpass.tensors.blocks import Block
from forwardpass.tensors.generators import generators_kept

_LOG: Final = logging.getLogger("forwardpass")
_GOLDEN: Final = ((3, 0.25), (1, 0.9))
"""Golden batches: how many rows, and around which quantile of their sizes. Several and one, small
and large; no more, since whoever opens the artefact waits for them."""


def exported(
    forward: Forward, block: Block, out: Path, *, sizing_seconds: float = SIZING_SECONDS,
    graph: FullGraph | None = None,
) -> Artefact:  # fmt: skip
    """Write a Forward as an artefact `out`, fitted to rows that are encoded already: what `export`
    writes, given the same rows as data.

    Args:
        sizing_seconds: that finding the best size of a batch may take.
        graph: of the same plan in full precision, where that was written before.

    Raises OutputExistsError, DataError and BuildError as `export` does.
    """
    forward, block = signed_by(forward, block)
    example = example_of(block)._replace(data=FittingBlock(block), graph=graph)
    with generators_kept(), whole_or_not_there(out) as staging:
        return written(forward, block, example, staging, sizing_seconds=sizing_seconds)


def signed_by(forward: Forward, block: Block) -> tuple[Forward, Block]:
    """The Forward and the same rows, of a signature that has just the inputs that they bring."""
    signature = block.signature
    there = tuple(
        msgspec.structs.replace(item, optional=False)
        for item in signature.inputs
        if item.derivation or item.path in block.values
    )
    exact = Signature(there, signature.outputs)
    whole = Forward(forward.model.with_signature(exact), forward.plan)
    return whole, replace(block, signature=exact)


def written(
    forward: Forward, block: Block, example: Example, folder: Path,
    *, sizing_seconds: float = SIZING_SECONDS,
) -> Artefact:  # fmt: skip
    """Write a Forward into an empty folder: its graph, proved, and all that opens it.

    Args:
        forward: with the signature of `block`.
        block: rows that golden ones are taken of, padding is proved on and batches are timed with.
        example: what it is built from; with `data` where there are rows to fit to.
        sizing_seconds: that finding the best size of a batch may take.

    Raises BuildError where the backend cannot make it, or makes something else of it.
    """
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
    seconds = None if example.data is None else sizing_seconds
    return _finished(artefact, model, block, folder, seconds)


def reopened(
    forward: Forward, block: Block, made: Path, out: Path,
    *, sizing_seconds: float = SIZING_SECONDS,
) -> Artefact:  # fmt: skip
    """Write an artefact `out` that has the graph of another one, and opens it as its own plan says:
    what `exported` writes, where only that differs (see `sharing_graph`).

    Args:
        made: the folder of the other one, of the same model, fitted to the same rows.
        sizing_seconds: that finding the best size of a batch may take.

    Raises OutputExistsError, DataError and BuildError as `export` does.
    """
    forward, block = signed_by(forward, block)
    with generators_kept(), whole_or_not_there(out) as staging:
        ours = shutil.ignore_patterns(READY, MANIFEST)
        shutil.copytree(made, staging, ignore=ours, dirs_exist_ok=True)
        known = msgspec.json.decode((made / MANIFEST).read_bytes(), type=Artefact)
        other = msgspec.structs.replace(known, plan=str(forward.plan), outputs=(), files={})
        return _finished(other, forward.model, block, staging, sizing_seconds)


def _finished(
    artefact: Artefact, model: Model, block: Block, folder: Path, sizing_seconds: float | None
) -> Artefact:
    """Write what is known of an artefact, and its manifest."""
    learned = _learned(artefact, model, block, folder, sizing_seconds)
    (folder / READY).write_bytes(msgspec.json.format(msgspec.json.encode(learned)))
    whole = msgspec.structs.replace(artefact, outputs=learned.outputs, files=sums(folder))
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(whole)))
    return whole


def _learned(
    artefact: Artefact, model: Model, block: Block, folder: Path, sizing_seconds: float | None
) -> Learned:
    """What is known of the artefact before its first row: outputs, padding, and what batches of the
    user's own rows cost; without seconds they are not timed."""
    timed = sizing_seconds is not None
    program = ArtefactProgram(folder, artefact)
    forward = Forward(Model(program, block.signature), Plan((), Plan.parse(artefact.plan).backend))
    encoded = alone(recurring(block) if timed else block)
    _LOG.info("timing batches" if timed else "what comes out")
    prepared = ready(
        forward, [encoded], executor, program.digest(), batch_rows=None if timed else 1,
        made_of=model, sizing_seconds=sizing_seconds or 0.0,
    )  # fmt: skip
    assert prepared is not None
    prepared.executor.close()
    known = msgspec.structs.asdict(prepared.ready)
    known |= {"origin": None, "costs": known["costs"] if timed else CostTable(())}
    return Learned(**known, trials=prepared.trials)


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
