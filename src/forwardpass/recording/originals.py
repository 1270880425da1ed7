"""Originals: the tensors that the user gave, beside the copies of them that a pass is made with."""

from __future__ import annotations

import weakref
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from forwardpass.keeping.memories import Memory, same_numbers
from forwardpass.keeping.states import place_of, set_version, version_of
from forwardpass.recording.arguments import tensors_in
from forwardpass.tensors.classes import classes_aside, dispatches


class Originals:
    """The tensors among arguments, as long as somebody has them: they are held weakly."""

    def __init__(self, tree: Any) -> None:
        self._alive = {path: weakref.ref(tensor) for path, tensor in tensors_in(tree).items()}

    @contextmanager
    def lent(self, copies: Any) -> Generator[Mapping[int, torch.Tensor]]:
        """The originals, by the id of their copies, for one pass; they are put back.

        One that is gone, or does not hold what its copy does, is left out; so is what autograd
        made or inference mode, and what stands for other tensors: a write to these cannot be taken
        back, or is refused.
        """
        with classes_aside():
            instead: dict[int, torch.Tensor] = {}
            for path, copy in tensors_in(copies).items():
                original = self._alive[path]() if path in self._alive else None
                if original is not None and _is_alike(original, copy):
                    instead[id(copy)] = original
            memory = Memory()
            before = [
                (t, t.detach(), place_of(t), version_of(t), t.requires_grad, dict(vars(t)))
                for t in instead.values()
            ]
            for tensor in instead.values():
                memory.keep(tensor)
        try:
            yield instead
        finally:
            with classes_aside():
                for tensor, alias, place, _, requires_grad, attributes in before:
                    if place_of(tensor) != place:
                        tensor.data = alias
                    if tensor.requires_grad != requires_grad:
                        tensor.requires_grad_(requires_grad)
                    if vars(tensor) != attributes:
                        vars(tensor).clear()
                        vars(tensor).update(attributes)
                memory.restore()
                for tensor, _, _, version, *_ in before:
                    set_version(tensor, version)


def _is_alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    kind = type(one)
    is_of_autograd = not one.is_leaf or one.is_inference()
    if is_of_autograd or kind is not type(other) or dispatches(kind):
        return False
    return same_numbers(one, other)
