"""Items: encoded rows whose inputs the notation cannot say, put together by the user's collate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Items:
    """Encoded rows of any form. `sizes` is int64 [rows, 1]: what each costs in cells."""

    items: Sequence[Any]
    sizes: np.ndarray[Any, np.dtype[np.int64]]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def lengths(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The real sizes: nothing is padded by us."""
        return self.sizes

    @property
    def bytes(self) -> int:
        """Bytes of the tensors and arrays that the items show; an estimate from the first 64."""
        sample = self.items[:64]
        seen = sum(getattr(leaf, "nbytes", 64) for item in sample for leaf in _leaves(item))
        return seen * len(self.items) // max(len(sample), 1)

    def take(self, indices: slice | np.ndarray[Any, Any]) -> Items:
        """These rows alone, in this order."""
        items = self.items
        if isinstance(indices, slice):
            return Items(items[indices], self.sizes[indices])
        return Items([items[int(index)] for index in indices], self.sizes[indices])


def joined_items(blocks: Sequence[Items]) -> Items:
    """All items of `blocks` in one."""
    items = [item for block in blocks for item in block.items]
    return Items(items, np.concatenate([block.sizes for block in blocks]))


def _leaves(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return [leaf for value in item.values() for leaf in _leaves(value)]
    if isinstance(item, list | tuple):
        return [leaf for value in item[:1024] for leaf in _leaves(value)]
    return [item]
