"""Scores: what stands between queries · keys and weights · values, as terms of one formula.

    weights = softmax(scale · queries · keysᵀ + mask)        output = weights · values

Nothing as large as the scores is computed here. Source: Vaswani et al., "Attention Is All You
Need", 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import torch
from torch.nn import functional as F

_SWALLOWS = -1e30
"""Whatever score is added to this, the sum is this in float32."""
_NO_WEIGHT = -208.0
"""exp of half of this is 0 in float32."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Of queries [… L E] and keys [… S E]: `scale · queries · keysᵀ + mask`, [… L S].

    Attributes:
        mask: what is added, or, where it is boolean, the keys that take part; None for neither.
        outer: the axes before the last two, where a view gave them another shape than those of
            queries and keys.
        softmaxed: whether these are weights already.
        dtype: of what they stand for.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    scale: float = 1.0
    mask: torch.Tensor | None = None
    outer: tuple[int, ...] | None = None
    softmaxed: bool = False
    dtype: torch.dtype = torch.float32

    @property
    def inner(self) -> tuple[int, ...]:
        """The axes before the last two, as queries and keys have them."""
        return _broadcast(self.queries.shape[:-2], self.keys.shape[:-2])

    @property
    def shape(self) -> torch.Size:
        """Of the scores."""
        outer = self.inner if self.outer is None else self.outer
        return torch.Size((*outer, self.queries.shape[-2], self.keys.shape[-2]))

    def takes(self, tensor: torch.Tensor) -> bool:
        """Whether it may be broadcast to the scores, and these stay as large as they are."""
        shape = self.shape
        if tensor.dim() > len(shape):
            return False
        aligned = zip(tensor.shape, shape[len(shape) - tensor.dim() :], strict=True)
        return all(size == 1 or size == full for size, full in aligned)

    def settled(self) -> Scores:
        """The same with queries, keys and mask in the shape that a view gave."""
        if self.outer is None:
            return self
        queries, keys, mask = self.queries, self.keys, self.mask
        if mask is not None:
            mask = self._viewed(mask[(None,) * (queries.dim() - mask.dim())])
        return replace(
            self, queries=self._viewed(queries), keys=self._viewed(keys), mask=mask, outer=None
        )

    def _viewed(self, tensor: torch.Tensor) -> torch.Tensor:
        assert self.outer is not None
        return _led(tensor, self.inner).reshape(*self.outer, *tensor.shape[-2:])

    def plus(self, added: torch.Tensor) -> Scores:
        """With a mask that is added."""
        mask = self.mask
        if mask is not None:
            mask = added.masked_fill(~mask, -inf) if mask.dtype == torch.bool else mask + added
        return replace(self, mask=added if mask is None else mask)

    def without(self, where: torch.Tensor, value: float | torch.Tensor) -> Scores:
        """With a number that leaves no weight in the place of scores.

        A query that no key may answer weighs all alike then, as it does where scores are replaced:
        whatever is added to the number is lost in it.
        """
        mask = self.mask
        if isinstance(value, float) and value == -inf and (mask is None or _is_boolean(mask)):
            return replace(self, mask=~where if mask is None else mask & ~where)
        if mask is None:
            mask = torch.zeros_like(where, dtype=self.dtype)
        elif _is_boolean(mask):
            mask = torch.zeros_like(mask, dtype=self.dtype).masked_fill(~mask, -inf)
        if isinstance(value, torch.Tensor):
            return replace(self, mask=torch.where(where, value.to(self.dtype), mask))
        if value > -inf:
            value = max(min(value, _SWALLOWS), torch.finfo(self.dtype).min)
        return replace(self, mask=mask.masked_fill(where, value))

    def weigh(self, values: torch.Tensor) -> torch.Tensor | None:
        """weights · values [… S D], by the fused operator; None where their axes do not fit."""
        outer, mask = self.outer, self.mask
        if outer is not None:
            if tuple(values.shape[:-2]) != outer:
                return None
            values = values.reshape(*self.inner, *values.shape[-2:])
        values = values.to(self.queries.dtype)
        if mask is not None and mask.dtype not in (torch.bool, values.dtype):
            mask = mask.clamp(min=torch.finfo(values.dtype).min).to(values.dtype)
        lead = _broadcast(self.inner, values.shape[:-2])
        queries, keys, values = (_led(one, lead) for one in (self.queries, self.keys, values))
        # The kernels that need no memory for scores take four axes.
        lacking = max(0, 2 - len(lead))
        queries, keys, values = (one[(None,) * lacking] for one in (queries, keys, values))
        if mask is not None:
            mask = mask[(None,) * (queries.dim() - mask.dim())]
        made = F.scaled_dot_product_attention(queries, keys, values, mask, scale=self.scale)
        made = made.to(self.dtype)[(0,) * lacking]
        return made if outer is None else made.reshape(*outer, *made.shape[-2:])


def leaves_no_weight(fill: float) -> bool:
    """Whether a number in place of a score is a mask: beside scores above half of it, exp of it is
    0 in float32."""
    return fill <= _NO_WEIGHT


def _is_boolean(mask: torch.Tensor) -> bool:
    return mask.dtype == torch.bool


def _led(tensor: torch.Tensor, lead: Sequence[int]) -> torch.Tensor:
    """The tensor with these axes before its last two; no memory is copied."""
    if tuple(tensor.shape[:-2]) == tuple(lead):
        return tensor
    return tensor.expand(*lead, *tensor.shape[-2:])


def _broadcast(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """The axes that two have when they are broadcast; sizes may be symbols."""
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    lacking = len(longer) - len(shorter)
    pairs = zip(longer[lacking:], shorter, strict=True)
    return (*longer[:lacking], *(b if a == 1 else a for a, b in pairs))
