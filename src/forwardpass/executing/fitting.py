"""The user's rows as batches, again and again: what steps and backends fit to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from forwardpass.executing.encoding import Encoder
from forwardpass.nouns.models import Model
from forwardpass.reading import open_source
from forwardpass.tensors.blocks import Block

_ROWS: Final = 32
"""Rows of a batch: many enough to be quick, and few enough to fit wherever the model does."""

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class FittingBlock:
    """Rows that are encoded, in batches `{path: array}`.

    Rows of a batch have one size along axes without `pad`; along the others they are about as long.
    """

    block: Block

    def __iter__(self) -> Iterator[Arrays]:
        block = self.block
        names = list(block.signature.variable)
        padded = [block.signature.padded(name) for name in names]
        loose = [place for place, pads in enumerate(padded) if not pads]
        tight = [place for place, pads in enumerate(padded) if pads]
        keys = [*(block.sizes[:, place] for place in tight), *(block.sizes[:, n] for n in loose)]
        order = np.lexsort(keys) if keys else np.arange(len(block))
        start = 0
        while start < len(order):
            stop = min(start + _ROWS, len(order))
            own = block.sizes[order[start:stop]][:, loose]
            differs = np.flatnonzero((own != own[0]).any(axis=1))
            stop = start + int(differs[0]) if len(differs) else stop
            chosen = block.take(order[start:stop])
            yield chosen.collate(chosen.sizes.max(axis=0).tolist())
            start = stop


@dataclass(frozen=True)
class FittingRows:
    """All rows of a source that can be encoded, in batches as of `FittingBlock`.

    Attributes:
        model: its signature is known, and has just the inputs that there are.
        source: as `run` reads it. It is read anew each time.
    """

    model: Model
    source: object

    def __iter__(self) -> Iterator[Arrays]:
        encoder = Encoder(self.model)
        for rows in open_source(self.source, wanted=self.model.text_columns).read(0):
            block = encoder(rows).block
            if isinstance(block, Block):
                yield from FittingBlock(block)
