"""Padding only after proof: rows computed alone and padded must give the same outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np

from forwardpass.building.engines import Engine
from forwardpass.nouns.signatures import Output
from forwardpass.tensors.arrays import Array, spelled
from forwardpass.tensors.blocks import Block, Sizes, cut
from forwardpass.tensors.distances import apart, tolerance


class PaddingProof(msgspec.Struct, frozen=True):
    """Which axes may be padded, and what was measured.

    Attributes:
        paddable: names of the axes that may be filled up.
        rows: rows on which it was tried.
        distance: largest relative distance between padded and alone, over all outputs.
        said: the outcome in a sentence.
    """

    paddable: tuple[str, ...]
    rows: int
    distance: float
    said: str


UNTRIED: Final = PaddingProof((), 0, 0.0, "")


def prove(engine: Engine, block: Block, row: int) -> PaddingProof:
    """Compute some rows of `block` alone and padded to larger ones among them, and compare.

    `row` is one that forward accepts; it is among them.

    Axes without `pad` in the signature are never tried. Rows that forward refuses alone are left
    out. Where outputs move beyond the tolerance of the coarsest dtype at work, no axis may be
    padded.
    """
    signature = block.signature
    wanted = tuple(name for name in signature.variable if signature.padded(name))
    if not wanted:
        said = (
            "no axis varies"
            if not signature.variable
            else "no padding is declared: only equal sizes share a batch"
        )
        return PaddingProof((), 0, 0.0, said)
    assert engine.signature is not None
    outputs = engine.signature.outputs
    chosen, alone = _alone(engine, outputs, block, dict.fromkeys([row, *_spread(block)]))
    held = [i for i, name in enumerate(signature.variable) if name not in wanted]
    if held:  # axes that stay apart must agree among the rows that are put together
        same = [(block.sizes[r][held] == block.sizes[row][held]).all() for r in chosen]
        alone = [outputs for outputs, kept in zip(alone, same, strict=True) if kept]
        chosen = [r for r, kept in zip(chosen, same, strict=True) if kept]
    names = ", ".join(wanted)
    batches = _padded(block, chosen)
    if not batches:
        return PaddingProof((), 0, 0.0, f"{names}: only one size is permitted, nothing to pad")
    facts = engine.replicas[0].facts
    dtypes = [facts.dtype, *(spelled(value) for row in alone for value in row)]
    allowed = max(tolerance(dtypes), facts.rounding)
    own = dict(zip(chosen, alone, strict=True))
    distance = max(
        (
            apart(ours, theirs)
            for rows, sizes in batches
            for r, came in zip(rows, _results(engine, outputs, block, rows, sizes), strict=True)
            for ours, theirs in zip(came, own[r], strict=True)
        ),
        default=0.0,
    )
    if distance <= allowed:
        said = f"{names} padded: proved on {len(chosen)} rows, " + (
            f"outputs move by {distance:.1e} at most" if distance else "outputs do not move"
        )
        return PaddingProof(wanted, len(chosen), distance, said)
    said = (
        f"{names} not padded: what is under the padding moves real outputs by {distance:.1e} "
        f"(tolerance {allowed:.0e}); only equal sizes share a batch"
    )
    return PaddingProof((), len(chosen), distance, said)


def _padded(block: Block, rows: Sequence[int]) -> list[tuple[list[int], Sizes]]:
    """Batches in which rows are padded, each with its sizes; none where nothing may be larger.

    All but the largest are filled up to the next, and the smallest to the largest: that is seldom
    near the others, and would make all of them cost as much as it does.
    """
    ordered = sorted(rows, key=lambda r: (int(block.sizes[r].prod()), *block.sizes[r].tolist()))
    sizes = block.sizes[ordered]
    if (sizes == sizes[0]).all():  # the proof still needs padding, so make some
        larger = np.array([_larger(block, i, int(size)) for i, size in enumerate(sizes[0])])
        return [] if (larger == sizes[0]).all() else [(ordered, larger)]
    if (sizes[:-1] == sizes[0]).all():
        return [(ordered, sizes.max(axis=0))]
    ends = [ordered[0], ordered[-1]]
    return [(ordered[:-1], sizes[:-1].max(axis=0)), (ends, sizes[[0, -1]].max(axis=0))]


def _alone(
    engine: Engine, outputs: tuple[Output, ...], block: Block, rows: Iterable[int]
) -> tuple[list[int], list[list[Array]]]:
    """The rows that forward accepts, and their outputs when they are computed alone."""
    accepted: list[int] = []
    alone: list[list[Array]] = []
    for row in rows:
        try:
            alone += _results(engine, outputs, block, [row], block.sizes[row])
        except Exception:  # noqa: BLE001 - a bad row is quarantined when its turn comes
            continue
        accepted.append(row)
    return accepted, alone


def _spread(block: Block) -> list[int]:
    """Up to 6 of the rows, from the smallest to the largest."""
    order = np.argsort(block.sizes.prod(axis=1), kind="stable").tolist()
    places = np.linspace(0, len(order) - 1, min(6, len(order))).astype(int).tolist()
    return [order[place] for place in dict.fromkeys(places)]


def _larger(block: Block, axis: int, size: int) -> int:
    bounds = list(block.signature.variable.values())[axis]
    if not block.signature.padded(bounds.name):
        return size
    grown = bounds.rounded(size + max(1, size // 2))
    top = bounds.high // bounds.multiple * bounds.multiple if bounds.high else grown
    return min(grown, top)


def _results(
    engine: Engine, outputs: tuple[Output, ...], block: Block, rows: Sequence[int], sizes: Sizes
) -> list[list[Array]]:
    """The outputs of these rows computed as one batch of these sizes: a list of arrays a row."""
    index = np.asarray(rows, dtype=np.int64)
    came = engine(block.take(index).collate(sizes.tolist()))
    names = list(block.signature.variable)
    lengths = [dict(zip(names, map(int, block.lengths[r]), strict=True)) for r in rows]
    left = block.signature.padded_left
    columns = [cut(came[output.path], output.extents, lengths, left) for output in outputs]
    return [list(row) for row in zip(*columns, strict=True)]
