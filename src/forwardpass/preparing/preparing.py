"""Before the first row: what comes out, whether rows may be padded, and what batches cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any, NamedTuple

import msgspec
import numpy as np

from forwardpass.batching.windows import SHARD
from forwardpass.building import Engine, build
from forwardpass.building.replicas import Example
from forwardpass.errors import DataError, PassError, said
from forwardpass.executing.batches import Batch, Early
from forwardpass.executing.deaths import Marks, Seam
from forwardpass.executing.encoding import EncodedRows, Encodings
from forwardpass.executing.executors import Executor, collated
from forwardpass.executing.salvaging import salvage
from forwardpass.measuring import caches
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.models import Model
from forwardpass.nouns.rows import Failure
from forwardpass.nouns.signatures import Output
from forwardpass.preparing.outputs import infer, probe, resized, verify
from forwardpass.preparing.padding import PaddingProof, prove
from forwardpass.preparing.recipes import Ready, costs_key, machine_of, stored
from forwardpass.preparing.sizing import SIZING_SECONDS, Sized, sized, timed
from forwardpass.preparing.trials import Trials
from forwardpass.tensors.blocks import Block

_HOPELESS = 100
"""Rows that all fail to encode before the encoding rather than the rows is to blame."""
_COPIES = 3
"""Rows of the example: of one, exporters take the batch for a constant."""
_TRIES = 32
"""Rows tried for one that the model computes, before the model rather than the rows is to blame."""


class Prepared(NamedTuple):
    """What computes, what is known, and what finding the costs has computed already.

    Attributes:
        trials: that the costs come from; none where no size was to be found.
        costs: where the costs come from, in a sentence; empty where they were found here, as ever.
    """

    executor: Executor
    ready: Ready
    early: Sequence[Early]
    seconds: float
    trials: Trials
    costs: str


def ready(
    forward: Forward,
    blocks: Iterable[EncodedRows],
    executor: Callable[[Engine], Executor],
    sha256: str,
    *,
    expected: int | None = None,
    batch_rows: int | None = None,
    most_rows: int = SHARD.rows,
    marks: Marks | None = None,
    made_of: Model | None = None,
    sizing_seconds: float = SIZING_SECONDS,
) -> Prepared | None:
    """Build a Forward by its first rows, and learn what must be known before the others.

    Looks at blocks until one has a row that was encoded; then builds, tells the outputs, proves the
    padding, and finds the best size of a batch while it computes rows of that block, and of further
    ones where rows cost next to nothing. None where no block has such a row.

    Args:
        forward: its signature is known, or it has a collate.
        executor: makes what computes; the caller closes it.
        sha256: the digest of the Forward, from before a row was encoded.
        expected: rows to compute in all, where that is known.
        batch_rows: rows of a batch, where no size is to be found.
        most_rows: positions from here on are left alone.
        marks: where it is noted over which rows processes died.
        made_of: the model of which an artefact that is being written was made.
        sizing_seconds: that finding the best size of a batch may take.

    Raises PassError where no row of the block can be computed, UsageError where the outputs cannot
    be told, DataError where a hundred rows could not be encoded and none could.
    """
    failures: list[Failure] = []
    blocks = iter(blocks)
    for done in blocks:
        if len(done.block):
            engine = built(forward, done.block)
            running = executor(engine)
            try:
                block, rows, seam = done.block, range(len(done.block)), None
                if marks is not None:
                    seam = Seam(marks, "sample", done.rows.positions)
                    rows = _survivors(engine, running, block, seam)
                    block = block if len(rows) == len(block) else block.take(np.array(rows))
                with seam.at(0, len(done.rows)) if seam else nullcontext():
                    place, known, identity = learned(
                        engine, made_of or forward.model, running, block, sha256
                    )
                row = rows[place]
                begun, source = _begun(engine.forward, known)
                if batch_rows is None:
                    rest = chain([done], blocks)
                    found = sized(
                        known, running, rest, row, identity,
                        expected=expected, most_rows=most_rows, begun=begun,
                        seconds=sizing_seconds,
                    )  # fmt: skip
                else:
                    found = Sized(timed(known, running, done, row, batch_rows), kept=True)
                known = msgspec.structs.replace(known, costs=found.costs)
                source = "" if found.kept else source
                return Prepared(running, known, found.early, found.seconds, found.trials, source)
            except BaseException:
                running.close()
                raise
        failures += done.failures
        if len(failures) >= _HOPELESS:
            raise DataError(
                f"none of the first {len(failures)} rows can be used; row {failures[0].key!r}: "
                f"{failures[0].error}"
            )
    return None


def built(forward: Forward, block: Encodings) -> Engine:
    """The engine of a Forward, built by the example of a row of `block`."""
    if isinstance(block, Block):
        return build(forward, example_of(block))
    rows = _tried(block)
    first: Exception | None = None
    for row in rows:
        try:
            inputs = collated(forward.model, block.take(np.array([row])))
        except Exception as error:  # noqa: BLE001 - raised below unless another row works
            first = first or error
        else:
            return build(forward, Example(forward.model.signature, inputs))
    assert first is not None
    raise PassError(f"collate raised on {_each(rows)}: {said(first)}") from first


def example_of(block: Block) -> Example:
    """A batch of a row of `block`, and batches of its rows at any sizes."""
    rows = _tried(block)
    sizes = dict(zip(block.signature.variable, map(int, block.sizes[rows[0]]), strict=True))

    def at(numbers: Sequence[int], other: Mapping[str, int]) -> dict[str, np.ndarray[Any, Any]]:
        return resized(block, [rows[n % len(rows)] for n in numbers], other)

    return Example(block.signature, probe(block, rows[0], _COPIES, sizes), at)


def learned(
    engine: Engine, model: Model, executor: Executor, block: Encodings, sha256: str
) -> tuple[int, Ready, dict[str, Any]]:
    """A row that is computed, all but the costs, and what the costs belong to."""
    identity = costs_key(sha256, machine_of(engine.replicas[0].facts))
    row = _works(engine, executor, block)
    known = stored(engine.forward)
    if known is not None:
        proof = _told(engine, known)
    elif isinstance(block, Block):
        proof = _proved(engine, model, block, row, identity)
    else:
        proof = PaddingProof(("size",), 0, 0.0, "left to the model's collate")
    return row, Ready.of(engine.forward, sha256, engine, proof), identity


def _survivors(engine: Engine, executor: Executor, block: Encodings, seam: Seam) -> Sequence[int]:
    """The rows of a block; where a process died over samples of it, those that were tried alone."""
    if not seam.over(0, len(block)):
        return range(len(block))
    alive: list[int] = []
    for row in _tried(block):
        for _, _, outcome in salvage(
            lambda a, _: _alone(engine, executor, block, a), row, row + 1, seam
        ):
            if not isinstance(outcome, Exception):
                alive.append(row)
    if not alive:
        name = engine.forward.model.program.name
        raise PassError(f"{name}.forward: no row that was tried can be computed alone")
    return sorted(alive)


def _alone(engine: Engine, executor: Executor, block: Encodings, row: int) -> None:
    one, sizes = block.take(slice(row, row + 1)), tuple(map(int, block.sizes[row]))
    if isinstance(one, Block):
        engine(one.collate(sizes))
    else:
        _submitted(executor, Batch(one, sizes, 1, 0))


def _works(engine: Engine, executor: Executor, block: Encodings) -> int:
    """A row of the block that the model computes alone.

    Raises PassError, with the model's own error as its cause, where no row can be computed.
    """
    tried = _tried(block)
    first: Exception | None = None
    for row in tried:
        try:
            _alone(engine, executor, block, row)
        except Exception as error:  # noqa: BLE001 - raised below unless another row works
            first = first or error
        else:
            return row
    assert first is not None
    name = engine.forward.model.program.name
    raise PassError(f"{name}.forward raised on {_each(tried)}: {said(first)}") from first


def _each(rows: list[int]) -> str:
    return "the only row" if len(rows) == 1 else f"each of {len(rows)} rows"


def _tried(block: Encodings) -> list[int]:
    """Rows to try, those of common sizes first: bad rows are often very short or very long."""
    order = np.argsort(block.sizes.prod(axis=1), kind="stable")
    shares = np.concatenate([[0.25, 0.5, 0.75, 0.0, 1.0], np.linspace(0, 1, _TRIES)])
    first = order[(shares * (len(order) - 1)).astype(np.int64)]
    return list(dict.fromkeys([*first.tolist(), *order[:_TRIES].tolist()]))[:_TRIES]


class _Known(msgspec.Struct, frozen=True):
    """What an earlier run of the same Forward on the same machine found."""

    outputs: tuple[str, ...]
    proof: PaddingProof


def _proved(
    engine: Engine, model: Model, block: Block, row: int, identity: dict[str, Any]
) -> PaddingProof:
    """What may be padded, the engine having learned its outputs; kept as measured costs are."""
    key = {**identity, "inputs": sorted(block.values)}
    known = caches.load("proofs", key, _Known)
    if known is not None:
        engine.learn([Output.parse(text) for text in known.outputs])
        return known.proof
    if block.signature.outputs:
        verify(engine, block, row)
    else:
        engine.learn(infer(engine, block, row))
    proof = prove(engine, block, row)
    if proof.paddable and engine.replicas[0].facts.rounding:
        proof = _unquantized(engine, model, block, row, proof)
    assert engine.signature is not None
    outputs = tuple(str(output) for output in engine.signature.outputs)
    caches.store("proofs", key, _Known(outputs, proof))
    return proof


def _unquantized(
    engine: Engine, model: Model, block: Block, row: int, proof: PaddingProof
) -> PaddingProof:
    """What may be padded of a graph that was quantized, where its own `proof` found nothing.

    What is under the padding could move outputs by less than quantization does. So the model
    itself is asked, too.
    """
    assert engine.signature is not None
    plain = built(Forward(model), block)
    plain.learn(engine.signature.outputs)
    exact = prove(plain, block, row)
    if not exact.paddable:
        return exact
    said = (
        f"{', '.join(proof.paddable)} padded: proved on {exact.rows} rows of the model, whose "
        f"outputs move by {exact.distance:.1e} at most; quantized, what shares their batch moves "
        f"them by {proof.distance:.1e}"
    )
    return msgspec.structs.replace(proof, said=said)


def _told(engine: Engine, known: Ready) -> PaddingProof:
    """What an artefact says may be padded, the engine having learned its outputs from it."""
    engine.learn([Output.parse(text) for text in known.outputs])
    return known.padding


def _begun(forward: Forward, known: Ready) -> tuple[Trials | None, str]:
    """What an artefact says that batches cost on this machine, and what became of that."""
    kept = stored(forward)
    if kept is None or not kept.trials.rounds:
        return None, ""
    if kept.machine.digest != known.machine.digest:
        return None, f"measured here: those of the artefact are of {kept.machine}"
    return kept.trials, "those of the artefact, which were measured on this machine"


def _submitted(executor: Executor, batch: Batch) -> int | None:
    """Compute a batch; the cells that did not fit. Raises what a row of it raised."""
    result = executor.submit(batch).result()
    for error in result.failures.values():
        raise error
    return result.refused_cells
