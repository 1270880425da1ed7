"""How much of the machine's limit a run reached: flops by recorded macs, per second computed."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from forwardpass.batching.packing import cells_of
from forwardpass.building.engines import Engine
from forwardpass.errors import ForwardpassError
from forwardpass.executing.encoding import Encodings
from forwardpass.measuring import caches
from forwardpass.preparing.outputs import probe
from forwardpass.tensors.blocks import Block

_SHARES = (0.25, 0.5, 1.0)
"""Of the rows by size: those whose macs are recorded; between them macs are interpolated."""


class MacTable(msgspec.Struct, frozen=True):
    """Macs of one row by its cells, as recorded: parallel arrays, cells ascending.

    Without cells the macs cannot be known.
    """

    cells: tuple[int, ...]
    macs: tuple[int, ...]

    def of(self, rows: int, cells: int) -> float:
        """Macs of a batch; linear between the recorded sizes, in proportion beyond them."""
        if not self.cells:
            return 0.0
        if cells > self.cells[-1]:
            return rows * self.macs[-1] * cells / self.cells[-1]
        return rows * float(np.interp(cells, self.cells, self.macs))


_UNKNOWN = MacTable((), ())


def mac_table(engine: Engine, block: Encodings, identity: dict[str, Any]) -> MacTable:
    """The macs of a few rows of `block`, each recorded alone, or kept from an earlier run.

    They cannot be known for a backend whose program is opaque, for a pass with a contraction that
    no formula covers, and where these rows cannot be computed: that is told when their turn comes.
    """
    known = caches.load("macs", identity, MacTable)
    if known is None:
        known = _counted(engine, block)
        if known.cells:
            caches.store("macs", identity, known)
    return known


def _counted(engine: Engine, block: Encodings) -> MacTable:
    if engine.forward.model.program.module is None or not isinstance(block, Block):
        return _UNKNOWN
    # a run whose macs are kept loads none of it, and one without a module not even PyTorch
    from forwardpass.building.backends.eager import EagerReplica
    from forwardpass.recording.passes import Pass
    from forwardpass.recording.recordings import recorded

    replica = engine.replicas[0]
    if not isinstance(replica, EagerReplica):
        return _UNKNOWN
    cells = cells_of(block.signature)(block.sizes)
    order = np.argsort(cells, kind="stable")
    rows = order[[int(s * (len(order) - 1)) for s in _SHARES]].tolist()
    chosen = {int(cells[row]): row for row in rows}
    macs: list[int] = []
    for row in chosen.values():
        staged = replica.stage(probe(block, row, 1, _sizes(block, row)))
        try:
            this = Pass.of(replica.module, staged.args, staged.kwargs, grad="inference")
            totals = recorded(str(engine.forward), this, ()).totals
        except (ForwardpassError, RuntimeError, ValueError, TypeError):
            return _UNKNOWN
        if totals.unknown or not totals.macs:
            return _UNKNOWN
        macs.append(totals.macs)
    return MacTable(tuple(chosen), tuple(macs))


def _sizes(block: Block, row: int) -> dict[str, int]:
    return dict(zip(block.signature.variable, map(int, block.sizes[row]), strict=True))


def limit_share(engine: Engine, macs: float, seconds: float) -> float | None:
    """Share of the matmul rate of one device, as measured, 0 to 1; None where neither is known."""
    facts = engine.replicas[0].facts
    if not macs or not seconds:
        return None
    from forwardpass.measuring.limits import matmul_rate  # it is that of PyTorch

    most = matmul_rate(facts.device, facts.dtype)
    return None if not most else 2 * macs / seconds / most
