"""Before the first row: what comes out, whether rows may be padded, and what batches cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from forwardpass.building import Engine, build
from forwardpass.errors import DataError, PassError, said
from forwardpass.executing.batches import Batch
from forwardpass.executing.encoding import EncodedRows, Encodings
from forwardpass.executing.executors import Executor, collated
from forwardpass.measuring import caches
from forwardpass.measuring.clocks import WALL
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.rows import Failure
from forwardpass.nouns.signatures import Output
from forwardpass.preparing.calibrating import Calibration, calibrate, representative
from forwardpass.preparing.outputs import infer, probe, repeated, verify
from forwardpass.preparing.padding import PaddingProof, prove
from forwardpass.preparing.recipes import Ready, costs_key, machine_of
from forwardpass.tensors.blocks import Block

Array = np.ndarray[Any, Any]
_LONGEST_CALIBRATION, _SHORTEST_CALIBRATION = 5.0, 0.1
_BLIND_CALIBRATION = 2.0
"""Seconds. The last is for data of which nobody knows how much there is."""
_HOPELESS = 100
"""Rows that all fail to encode before the encoding rather than the rows is to blame."""
_COPIES = 3
"""Rows of the example: of one, exporters take the batch for a constant."""
_TRIES = 32
"""Rows tried for one that the model computes, before the model rather than the rows is to blame."""


def ready(
    forward: Forward,
    blocks: Iterable[EncodedRows],
    executor: Callable[[Engine], Executor],
    sha256: str,
    expected: int | None = None,
) -> tuple[Executor, Ready] | None:
    """Build a Forward by its first rows, and learn what must be known before they are computed.

    Looks at blocks until one has a row that was encoded; then builds, tells the outputs, proves the
    padding and measures the costs, all on that block. None where no block has such a row.

    Args:
        forward: its signature is known, or it has a collate.
        executor: makes what computes; the caller closes it.
        sha256: the digest of the Forward, from before a row was encoded.
        expected: rows to compute in all, where that is known; few rows are not worth a long
            calibration.

    Raises PassError where no row of the block can be computed, UsageError where the outputs cannot
    be told, DataError where a hundred rows could not be encoded and none could.
    """
    failures: list[Failure] = []
    for done in blocks:
        if len(done.block):
            engine = built(forward, done.block)
            running = executor(engine)
            try:
                return running, _learned(engine, running, done.block, sha256, expected)
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
    rows = _spread(block.sizes.prod(axis=1))[:_TRIES]
    if isinstance(block, Block):
        sizes = dict(zip(block.signature.variable, map(int, block.sizes[rows[0]]), strict=True))
        return build(forward, probe(block, rows[0], _COPIES, sizes))
    first: Exception | None = None
    for row in rows:
        try:
            inputs = collated(forward.model, block.take(np.array([row])))
        except Exception as error:  # noqa: BLE001 - raised below unless another row works
            first = first or error
        else:
            return build(forward, inputs)
    assert first is not None
    raise PassError(f"collate raised on {_each(rows)}: {said(first)}") from first


def _learned(
    engine: Engine, executor: Executor, block: Encodings, sha256: str, expected: int | None
) -> Ready:
    facts = engine.replicas[0].facts
    identity = costs_key(sha256, machine_of(facts))
    row = _works(engine, executor, block)
    if isinstance(block, Block):
        proof = _proved(engine, block, row, identity)
        axes = tuple(block.signature.variable.values())
        names, cells = [axis.name for axis in axes], block.signature.cells
        shapes = representative(block.sizes, axes)
    else:
        proof = PaddingProof(("size",), 0, 0.0, "left to the model's collate")
        names, cells, shapes = ["size"], _only, _sizes(block)
    own = dict(zip(names, map(int, block.sizes[row]), strict=True))
    compute = _computing(executor, block, row, names)

    def calibrated(shapes: list[dict[str, int]]) -> Calibration:
        return calibrate(
            compute,
            shapes,
            cells,
            device=facts.device,
            identity=identity,
            budget_seconds=lambda: _budget(compute, own, expected),
        )

    try:
        calibration = calibrated(shapes)
    except MemoryError:  # the model takes none of the sizes that stand for the rows
        calibration = calibrated([own])
    return Ready.of(engine.forward, sha256, engine, proof, calibration.table)


def _works(engine: Engine, executor: Executor, block: Encodings) -> int:
    """A row of the block that the model computes alone.

    Raises PassError, with the model's own error as its cause, where no row can be computed.
    """
    tried = _spread(block.sizes.prod(axis=1))[:_TRIES]
    first: Exception | None = None
    for row in tried:
        one, sizes = block.take(slice(row, row + 1)), tuple(map(int, block.sizes[row]))
        try:
            if isinstance(one, Block):
                engine(one.collate(sizes))
            else:
                _submitted(executor, Batch(one, sizes, 1, 0))
        except Exception as error:  # noqa: BLE001 - raised below unless another row works
            first = first or error
        else:
            return row
    assert first is not None
    name = engine.forward.model.program.name
    raise PassError(f"{name}.forward raised on {_each(tried)}: {said(first)}") from first


def _each(rows: list[int]) -> str:
    return "the only row" if len(rows) == 1 else f"each of {len(rows)} rows"


def _spread(sizes: Array) -> list[int]:
    """All rows, those of common sizes first: bad rows are often very short or very long."""
    order = np.argsort(sizes, kind="stable")
    shares = np.concatenate([[0.25, 0.5, 0.75, 0.0, 1.0], np.linspace(0, 1, _TRIES)])
    first = order[(shares * (len(order) - 1)).astype(np.int64)]
    return list(dict.fromkeys([*first.tolist(), *order.tolist()]))


def _budget(
    compute: Callable[[int, dict[str, int]], None],
    shape: dict[str, int],
    expected: int | None,
) -> float:
    """Seconds that calibrating may take: a tenth of what the rows would take one at a time."""
    if expected is None:
        return _BLIND_CALIBRATION
    compute(1, shape)
    tenth = 0.1 * expected * WALL.seconds(lambda: compute(1, shape))
    return min(_LONGEST_CALIBRATION, max(_SHORTEST_CALIBRATION, tenth))


class _Known(msgspec.Struct, frozen=True):
    """What an earlier run of the same Forward on the same machine found."""

    outputs: tuple[str, ...]
    proof: PaddingProof


def _proved(engine: Engine, block: Block, row: int, identity: dict[str, Any]) -> PaddingProof:
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
    assert engine.signature is not None
    outputs = tuple(str(output) for output in engine.signature.outputs)
    caches.store("proofs", key, _Known(outputs, proof))
    return proof


def _only(sizes: Any) -> int:
    return int(sizes["size"])


def _sizes(block: Encodings) -> list[dict[str, int]]:
    """Sizes of items to measure: a quarter, the median, the largest."""
    return [
        {"size": int(size)}
        for size in np.unique(np.quantile(block.sizes, (0.25, 0.5, 1.0), method="nearest"))
    ]


def _computing(
    executor: Executor, block: Encodings, row: int, names: list[str]
) -> Callable[[int, dict[str, int]], None]:
    """`compute(rows, sizes)` for the calibration, through the executor that will do the work."""
    made: dict[tuple[Any, ...], Batch] = {}

    def compute(rows: int, sizes: dict[str, int]) -> None:
        key = (rows, *sizes.values())
        if key not in made:
            made.clear()  # one batch at a time: they may be large
            made[key] = _probe_batch(block, row, rows, sizes, names)
        try:
            refused = _submitted(executor, replace(made[key]))  # anew: padding is part of the cost
        except Exception as error:
            # too many rows for an exported program, too long a row for the model: not larger ones
            raise MemoryError(f"a batch of {rows} rows of {sizes} is refused: {error}") from error
        if refused is not None:
            raise MemoryError(f"a batch of {rows} rows of {sizes} does not fit into memory")

    return compute


def _probe_batch(
    block: Encodings, row: int, rows: int, sizes: dict[str, int], names: list[str]
) -> Batch:
    if isinstance(block, Block):
        target = tuple(sizes[name] for name in names)
        cells = block.signature.cells(sizes)
        return Batch(repeated(block, row, rows, sizes), target, cells, 0)
    nearest = int(np.abs(block.sizes[:, 0] - sizes["size"]).argmin())
    return Batch(block.take(np.full(rows, nearest)), (sizes["size"],), sizes["size"], 0)


def _submitted(executor: Executor, batch: Batch) -> int | None:
    """Compute a batch; the cells that did not fit. Raises what a row of it raised."""
    result = executor.submit(batch).result()
    for error in result.failures.values():
        raise error
    return result.refused_cells
