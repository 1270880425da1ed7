"""Passes of a module at several sizes, to see how large what its parts give is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import chain
from typing import Final

import torch
from torch.utils import _pytree as pytree

from forwardpass.building.replicas import Inputs
from forwardpass.building.subjects import Subject, arguments_of, is_resizable
from forwardpass.building.workpieces import Workpiece
from forwardpass.recording.passes import Pass

_SIDE_BY_SIDE: Final = 24
"""Sizes of one axis in which a stride of up to half as much shows."""


class Sizings:
    """The passes of the module as it is now: on the example, at other sizes where these can be
    had, and on the user's data."""

    def __init__(self, piece: Workpiece) -> None:
        self._piece = piece

    def __iter__(self) -> Iterator[Pass]:
        return map(self._pass, chain([self._piece.example.inputs], self._resized, self._data()))

    @property
    def vary(self) -> bool:
        """Whether what goes in is not always of the same sizes."""
        shapes = {
            tuple(leaf.shape for leaf in pytree.tree_leaves((this.arguments, this.keywords))
                  if isinstance(leaf, torch.Tensor))
            for this in self
        }  # fmt: skip
        return len(shapes) > 1

    @property
    def sweep(self) -> Iterator[Pass]:
        """One row, with sizes of each variable axis that lie side by side."""
        signature = self._piece.example.signature
        if self._subject is None or signature is None:
            return
        sizes = self._subject.written[1]
        for name, axis in signature.variable.items():
            for step in range(_SIDE_BY_SIDE):
                size = axis.rounded(sizes[name] + step * axis.multiple)
                if axis.high is None or size <= axis.high:
                    yield self._pass(self._subject.batch(1, {**sizes, name: size}))

    @cached_property
    def _subject(self) -> Subject | None:
        piece = self._piece
        return Subject(piece.module, piece.example) if is_resizable(piece.example) else None

    @cached_property
    def _resized(self) -> list[Inputs]:
        """Batches of other sizes that the module takes."""
        return [] if self._subject is None else [t.inputs for t in self._subject.truths()]

    def _data(self) -> Iterator[Inputs]:
        yield from self._piece.example.data or ()

    def _pass(self, inputs: Inputs) -> Pass:
        piece = self._piece
        args, kwargs = arguments_of(piece.module, piece.example.signature, inputs)
        return Pass.of(piece.module, args, kwargs, grad="inference")
