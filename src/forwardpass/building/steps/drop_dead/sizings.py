"""Passes of a module at several sizes, to see how large what its parts give is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import chain, islice
from typing import Final

import torch
from torch.utils import _pytree as pytree

from forwardpass.building.replicas import Inputs
from forwardpass.building.subjects import Subject, arguments_of, is_resizable
from forwardpass.building.workpieces import Workpiece
from forwardpass.recording.passes import Pass

_ENOUGH: Final = 12
"""Batches of the user's data, by which sizes are told."""
_BESIDE: Final = sorted({step * count for step in (1, 5, 25, 125) for count in range(12)})
"""How much longer an axis is than in the example: side by side, and so far apart that sizes behind
layers with strides of their own lie side by side."""


class Sizings:
    """The passes of the module as it is now: on the batches by which steps are proved, and on the
    user's data."""

    def __init__(self, piece: Workpiece) -> None:
        self._piece = piece
        self._shapes: set[tuple[torch.Size, ...]] = set()

    def __iter__(self) -> Iterator[Pass]:
        data = islice(self._piece.example.data or (), _ENOUGH)
        for inputs in chain(self._piece.tried, data):
            this = self._pass(inputs)
            leaves = pytree.tree_leaves((this.arguments, this.keywords))
            shapes = tuple(leaf.shape for leaf in leaves if isinstance(leaf, torch.Tensor))
            if shapes not in self._shapes:
                self._shapes.add(shapes)
                yield this

    @property
    def vary(self) -> bool:
        """Whether what went in so far is not always of the same sizes."""
        return len(self._shapes) > 1

    @property
    def sweep(self) -> Iterator[Pass]:
        """One row, with many sizes of each variable axis."""
        signature = self._piece.example.signature
        if self._subject is None or signature is None:
            return
        sizes = self._subject.written[1]
        for name, axis in signature.variable.items():
            for step in _BESIDE:
                size = axis.rounded(sizes[name] + step * axis.multiple)
                if axis.high is None or size <= axis.high:
                    yield self._pass(self._subject.batch(1, {**sizes, name: size}))

    @cached_property
    def _subject(self) -> Subject | None:
        piece = self._piece
        return Subject(piece.module, piece.example) if is_resizable(piece.example) else None

    def _pass(self, inputs: Inputs) -> Pass:
        piece = self._piece
        args, kwargs = arguments_of(piece.module, piece.example.signature, inputs)
        return Pass.of(piece.module, args, kwargs, grad="inference")
