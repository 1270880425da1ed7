"""Before the first row: what comes out, whether rows may be padded, and what batches cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from forwardpass.batching.packing import Cells, cells_of
from forwardpass.building.engines import Engine
from forwardpass.errors import PassError
from forwardpass.executing.batches import Batch
from forwardpass.executing.encoding import EncodedRows, Encodings
from forwardpass.executing.executors import InProcess, failed
from forwardpass.executing.salvaging import said
from forwardpass.measuring import caches
from forwardpass.measuring.clocks import WALL
from forwardpass.nouns.costs import CostTable
from forwardpass.nouns.signatures import Output
from forwardpass.preparing.calibrating import Calibration, calibrate, representative
from forwardpass.preparing.outputs import infer, probe, verify
from forwardpass.preparing.padding import PaddingProof, prove
from forwardpass.tensors.blocks import Block
from forwardpass.tensors.dtypes import TORCH

Array = np.ndarray[Any, Any]
_LONGEST_CALIBRATION, _SHORTEST_CALIBRATION = 5.0, 0.1
_BLIND_CALIBRATION = 2.0
"""Seconds. The last is for data of which nobody knows how much there is."""
_TRIES = 32
"""Rows tried for one that the model computes, before the model rather than the rows is to blame."""


@dataclass(frozen=True)
class Prepared:
    """What is known before the first row; it is stored, and a resumed run follows it."""

    engine: Engine
    paddable: tuple[str, ...]
    padding: str
    costs: CostTable

    @classmethod
    def nothing(cls, engine: Engine) -> Prepared:
        """For data of which no row can be computed."""
        return cls(engine, (), "", CostTable(()))

    @property
    def may_pad(self) -> tuple[bool, ...]:
        """For each axis along which rows vary, whether it may be padded."""
        signature = self.engine.signature
        return tuple(
            name in self.paddable for name in (signature.variable if signature else ["size"])
        )

    @property
    def cells(self) -> Cells:
        """Sizes [..., axes] → cells of a row."""
        signature = self.engine.signature
        return (lambda sizes: sizes[..., 0]) if signature is None else cells_of(signature)

    def weigh(self, block: Encodings) -> tuple[Array, Array, Array]:
        """Encoded bytes, output bytes and predicted seconds of each row of a block."""
        seconds = self.costs.row_seconds(self.cells(block.sizes)) if len(block) else np.zeros(0)
        if not isinstance(block, Block):
            each = block.bytes // max(len(block), 1)
            return np.full(len(block), each), np.full(len(block), each), seconds
        signature = block.signature
        columns = dict(zip(signature.variable, block.lengths.T, strict=True))
        encoded, output = np.zeros(len(block), np.int64), np.zeros(len(block), np.int64)
        for item in signature.given:
            row = np.full(len(block), TORCH[item.dtype].itemsize, np.int64)
            for axis in item.row_axes:
                row *= columns[axis.name] if axis.is_variable else axis.size
            encoded += row
        assert self.engine.signature is not None
        for item in self.engine.signature.outputs:
            output += _bytes(item, columns, len(block))
        return encoded, output, seconds


def works(engine: Engine, executor: InProcess, done: EncodedRows) -> int | None:
    """A row of the block that the model computes alone, or None for a block without rows.

    Raises PassError, with the model's own error as its cause, where no row can be computed.
    """
    if not len(done.block):
        return None
    tried = _spread(done.block.sizes.prod(axis=1))[:_TRIES]
    first: Exception | None = None
    for row in tried:
        index = np.array([row], np.int64)
        try:
            inputs = done.block.collate(index, done.block.sizes[row].tolist())
            if isinstance(done.block, Block):
                executor.call(lambda inputs=inputs: engine(inputs))
            else:
                _submitted(executor, Batch(done.block, index, tuple(done.block.sizes[row]), 1, 0))
        except Exception as error:  # noqa: BLE001 - raised below unless another row works
            first = first or error
        else:
            return row
    assert first is not None
    kind = type(engine.forward.model.module).__name__
    which = "the only row" if len(tried) == 1 else f"each of {len(tried)} rows"
    raise PassError(f"{kind}.forward raised on {which}: {said(first)}") from first


def _spread(sizes: Array) -> list[int]:
    """All rows, those of common sizes first: bad rows are often very short or very long."""
    order = np.argsort(sizes, kind="stable")
    shares = np.concatenate([[0.25, 0.5, 0.75, 0.0, 1.0], np.linspace(0, 1, _TRIES)])
    first = order[(shares * (len(order) - 1)).astype(np.int64)]
    return list(dict.fromkeys([*first.tolist(), *order.tolist()]))


def prepare(
    engine: Engine,
    executor: InProcess,
    done: EncodedRows,
    row: int,
    identity: dict[str, Any],
    expected: int | None,
) -> Prepared:
    """Infer the outputs, prove the padding, measure the costs, all on the first rows.

    Args:
        done: encoded rows; `row` is one of them that the model computes.
        identity: what measured costs belong to, the key under which they are kept.
        expected: rows to compute in all, where that is known; few rows are not worth a long
            calibration.
    """
    block = done.block
    if isinstance(block, Block):
        signature = block.signature
        engine, proof = executor.call(lambda: _proved(engine, block, row, identity))
        executor.engine = engine
        paddable, said_ = proof.paddable, proof.said
        axes = tuple(signature.variable.values())
        names = [axis.name for axis in axes]
        cells = signature.cells
    else:
        paddable, said_ = ("size",), "left to the model's collate"
        axes, names = (), ["size"]
        cells = _only
    shapes = (
        representative(block.sizes, axes) if axes or isinstance(block, Block) else _sizes(block)
    )
    own = dict(zip(names, map(int, block.sizes[row]), strict=True))
    compute = _computing(executor, block, row, names)

    def calibrated(shapes: list[dict[str, int]]) -> Calibration:
        return calibrate(
            compute,
            shapes,
            cells,
            device=str(engine.replicas[0].device),
            identity=identity,
            budget_seconds=lambda: _budget(compute, own, expected),
        )

    try:
        calibration = calibrated(shapes)
    except MemoryError:  # the model takes none of the sizes that stand for the rows
        calibration = calibrated([own])
    executor.ceiling.cells = None  # what calibration hit is in the table
    return Prepared(engine, paddable, said_, calibration.table)


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


def _proved(
    engine: Engine, block: Block, row: int, identity: dict[str, Any]
) -> tuple[Engine, PaddingProof]:
    """The engine with its outputs known, and what may be padded; kept as measured costs are."""
    key = {**identity, "inputs": sorted(block.values)}
    known = caches.load("proofs", key, _Known)
    if known is not None:
        return engine.with_outputs([Output.parse(text) for text in known.outputs]), known.proof
    if block.signature.outputs:
        verify(engine, block, row)
    else:
        engine = engine.with_outputs(infer(engine, block, row))
    proof = prove(engine, block, row)
    assert engine.signature is not None
    outputs = tuple(str(output) for output in engine.signature.outputs)
    caches.store("proofs", key, _Known(outputs, proof))
    return engine, proof


def _only(sizes: Any) -> int:
    return int(sizes["size"])


def _sizes(block: Encodings) -> list[dict[str, int]]:
    """Sizes of items to measure: a quarter, the median, the largest."""
    return [
        {"size": int(size)}
        for size in np.unique(np.quantile(block.sizes, (0.25, 0.5, 1.0), method="nearest"))
    ]


def _computing(
    executor: InProcess, block: Encodings, row: int, names: list[str]
) -> Callable[[int, dict[str, int]], None]:
    """`compute(rows, sizes)` for the calibration, through the executor that will do the work."""
    made: dict[tuple[Any, ...], Batch] = {}

    def compute(rows: int, sizes: dict[str, int]) -> None:
        key = (rows, *sizes.values())
        if key not in made:
            made.clear()  # one batch at a time: they may be large
            made[key] = _probe_batch(block, row, rows, sizes, names)
        before = executor.ceiling.cells
        try:
            _submitted(executor, replace(made[key]))  # a new one: padding is part of the cost
        except Exception as error:
            # too many rows for an exported program, too long a row for the model: not larger ones
            raise MemoryError(f"a batch of {rows} rows of {sizes} is refused: {error}") from error
        if executor.ceiling.cells != before:
            raise MemoryError(f"a batch of {rows} rows of {sizes} does not fit into memory")

    return compute


def _probe_batch(
    block: Encodings, row: int, rows: int, sizes: dict[str, int], names: list[str]
) -> Batch:
    if not isinstance(block, Block):
        nearest = int(np.abs(block.sizes[:, 0] - sizes["size"]).argmin())
        return Batch(block, np.full(rows, nearest), (sizes["size"],), sizes["size"], 0)
    target = tuple(sizes[name] for name in names)
    inputs = probe(block, row, rows, sizes)
    lengths = np.tile(np.array(target, np.int64), (rows, 1))
    values = {
        item.path: inputs[item.path].movedim(item.batch_axis or 0, 0)
        for item in block.signature.given
        if item.path in inputs
    }
    whole = Block(block.signature, values, lengths, lengths)
    return Batch(whole, np.arange(rows), target, block.signature.cells(sizes), 0)


def _submitted(executor: InProcess, batch: Batch) -> None:
    result = failed(executor.submit(batch))
    for error in result.failures.values():
        raise error


def _bytes(item: Output, columns: dict[str, Array], count: int) -> Array:
    """Bytes of one output, a row each."""
    row = np.full(count, TORCH[item.dtype].itemsize, np.int64)
    for extent in item.extents:
        if extent.name in columns:
            row *= np.maximum((columns[extent.name] + extent.offset) // extent.divisor, 0)
        elif extent.name != "batch":
            row *= extent.size
    return row
