"""Two passes over batches of different size: which rows of one are the rows of the other."""

from __future__ import annotations

import torch

from forwardpass.probing.changes import Change
from forwardpass.probing.layouts import layout_of
from forwardpass.probing.probes import Probe
from forwardpass.tensors.errors import error, is_comparable


def in_pieces(probe: Probe, rows: int) -> dict[str, torch.Tensor]:
    """The outputs of all rows, computed `rows` at a time, and put together.

    An output is put together along the axis that holds the rows of every piece; one that has none
    is left out.
    """
    total, record = probe.rows, probe.record
    spans = [range(total)[start : start + rows] for start in range(0, total, rows)]
    pieces = [probe.outputs(Change(rows=tuple(span))) for span in spans]
    found: dict[str, torch.Tensor] = {}
    for path, serial in record.outputs.items():
        parts = [piece[path] for piece in pieces if path in piece and is_comparable(piece[path])]
        if len(parts) < len(pieces):
            continue
        whole, sizes = record.values[serial].shape, zip(parts, spans, strict=True)
        layouts = {layout_of(whole, part.shape, total, len(span)) for part, span in sizes}
        layout = layouts.pop()
        if layout is not None and layout.inner == 1 and not layouts:
            found[path] = torch.cat(parts, layout.axis)
    return found


def counterpart(
    mine: torch.Tensor, its: torch.Tensor, rows: tuple[int, int]
) -> torch.Tensor | None:
    """What of a's value corresponds to b's, where a has `rows[0]` and b `rows[1]` rows.

    Where rows were flattened together with other axes, it is what is nearest to b's own numbers.
    """
    if mine.shape == its.shape:
        return mine
    if not (is_comparable(mine) and is_comparable(its)):
        return None
    layout = layout_of(mine.shape, its.shape, *rows)
    if layout is None:
        return None
    ways = list(layout.parts(mine, 0, rows[1]))
    return min(ways, key=lambda way: error(way, its).relative) if len(ways) > 1 else ways[0]
