"""Measures: arrays that came as rows are checked against the signature, and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from forwardpass.batching.packing import Cells, Sizes, cells_of
from forwardpass.executing.encoding import checked
from forwardpass.nouns.signatures import Signature
from forwardpass.serving.exchanges import RefusedError
from forwardpass.serving.messages import About
from forwardpass.tensors.arrays import NUMPY
from forwardpass.tensors.blocks import Numbers


class Measures:
    """What rows of one model are measured by.

    Attributes:
        cells: sizes along the model's axes to the cells of a row.
    """

    def __init__(self, about: About) -> None:
        self._signature = Signature.parse(about.inputs) if about.inputs else None
        self.cells: Cells = _own if self._signature is None else cells_of(self._signature)
        given = () if self._signature is None else self._signature.given
        self._fixed = not (self._signature is None or self._signature.variable)
        self._plain = [
            (item.path, NUMPY[item.dtype], tuple(axis.size for axis in item.row_axes))
            for item in given
        ]

    def sizes(self, arrays: Mapping[str, Numbers], count: int) -> Sequence[tuple[int, ...]]:
        """The sizes of each row along the named axes, padded as the signature says.

        Raises RefusedError: 400 for what does not fit the signature, 413 for a row that is longer
        than an axis may be.
        """
        if self._fixed and self._is_plain(arrays, count):
            return [()] * count
        if self._signature is None:
            raise RefusedError(400, "rows of this model come as values, not as tensors")
        try:
            block, cut = checked(self._signature, arrays, count)
        except (TypeError, ValueError) as error:
            raise RefusedError(400, str(error)) from error
        if cut:
            row = min(cut)
            longest = ", ".join(str(a) for a in self._signature.variable.values() if a.high)
            raise RefusedError(
                413, f"row {row} is longer than the model takes: {longest}", reason="long", row=row
            )
        return list(map(tuple, block.sizes.tolist()))

    def _is_plain(self, arrays: Mapping[str, Numbers], count: int) -> bool:
        """Whether all inputs are there, as they are wanted. Looked at first, since it costs least:
        what is not so is looked at again, and may be right nevertheless."""
        if len(arrays) != len(self._plain):
            return False
        for path, dtype, shape in self._plain:
            value = arrays.get(path)
            if not isinstance(value, np.ndarray) or value.dtype != dtype:
                return False
            if len(value) != count or value.shape[1:] != shape:
                return False
        return True


def _own(sizes: Sizes) -> Sizes:
    """Of a model with a collate: what its `size` said of a row are its cells."""
    return np.maximum(sizes.prod(axis=-1), 1)
