"""Contraction: an einsum of two operands, as far as attention is written in it.

>>> Contraction.parse("bqhd,bkhd->bhqk", (4, 4)).of_keys().first
Operand(order=(0, 2, 1, 3), added=())
>>> Contraction.parse("bhqk,bkhd->bqhd", (4, 4)).of_values().order
(0, 2, 1, 3)
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import NamedTuple

import torch


class Operand(NamedTuple):
    """How an operand is laid out for a product of matrices.

    Attributes:
        order: its axes in the order that is wanted. added: places of axes of size 1 that it lacks.
    """

    order: tuple[int, ...]
    added: tuple[int, ...]

    def placed(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor laid out so, as a view."""
        laid = tensor if self.order == tuple(range(tensor.dim())) else tensor.permute(self.order)
        for place in self.added:
            laid = laid.unsqueeze(place)
        return laid


class Products(NamedTuple):
    """The equation as a product of matrices.

    Attributes:
        first, second: how its operands are laid out. order: the axes of the product, in the order
            that the equation gives them.
    """

    first: Operand
    second: Operand
    order: tuple[int, ...]


class Contraction(NamedTuple):
    """The labels of the axes of two operands, and of what is made of them."""

    first: str
    second: str
    result: str

    @classmethod
    def parse(cls, text: str, dims: Sequence[int]) -> Contraction | None:
        """None where it says no result, takes other operands, or repeats a label."""
        operands, arrow, result = text.replace(" ", "").partition("->")
        parts = operands.split(",")
        if not arrow or len(parts) != 2:
            return None
        extra = {d - len(p) + 3 for p, d in zip(parts, dims, strict=True) if "..." in p}
        if len(extra) > 1:
            return None
        unused = [letter for letter in string.ascii_letters if letter not in text]
        more = "".join(unused[: extra.pop()]) if extra else ""
        found = cls(*(part.replace("...", more) for part in (*parts, result)))
        whole = all(len(part) == dim for part, dim in zip(found[:2], dims, strict=True))
        return found if whole and all(len(set(part)) == len(part) for part in found) else None

    def of_keys(self) -> Products | None:
        """Queries [batch… q e] and keys [batch… k e] that make scores [batch… q k]; None where
        they do not."""
        *batch, q, k = self.result if len(self.result) >= 2 else ("", "")
        summed = [label for label in self.first if label not in self.result]
        if not q or len(summed) != 1 or q in self.second or k in self.first:
            return None
        (e,) = summed
        first, second = _laid(self.first, [*batch, q, e]), _laid(self.second, [*batch, k, e])
        return Products(first, second, ()) if first and second else None

    def of_values(self) -> Products | None:
        """Weights [batch… q k] and values [batch… k d] that make an output; None where they do
        not."""
        *batch, q, k = self.first if len(self.first) >= 2 else ("", "")
        own = [label for label in self.second if label not in self.first]
        if not q or len(own) != 1 or q in self.second or k in self.result:
            return None
        made = [*batch, q, *own]
        first, second = _laid(self.first, [*batch, q, k]), _laid(self.second, [*batch, k, *own])
        if first is None or second is None or sorted(self.result) != sorted(made):
            return None
        return Products(first, second, tuple(made.index(label) for label in self.result))


def _laid(labels: str, wanted: Sequence[str]) -> Operand | None:
    """How to lay out axes of these labels as they are wanted; None where one is not wanted, or one
    of the last two is not there."""
    if set(labels) - set(wanted) or set(wanted[-2:]) - set(labels):
        return None
    order = tuple(labels.index(label) for label in wanted if label in labels)
    return Operand(order, tuple(n for n, label in enumerate(wanted) if label not in labels))
