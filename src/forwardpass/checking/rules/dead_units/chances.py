"""Chances: how far from 0 the units of a layer stand by chance, by its weights and its input."""

from __future__ import annotations

from math import lgamma, log
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from forwardpass.nouns.calls import Call
from forwardpass.nouns.records import Record
from forwardpass.operators import batch_norm, convolution, group_norm, layer_norm, linear

if TYPE_CHECKING:
    from forwardpass.checking.subjects import Subject

_PRODUCTS = frozenset((*linear.COVERS, *convolution.COVERS))
_NORMS = frozenset((*batch_norm.COVERS, *layer_norm.COVERS, *group_norm.COVERS))
_MOVES = frozenset(("add", "sub", "clone", "contiguous", "_to_copy", "dropout"))
_STEPS = 12
UNLIKELY: Final = log(1e-6)
"""What nobody will see by chance."""


def log_choices(units: int, chosen: int) -> float:
    """The logarithm of how many ways there are to choose so many of the units."""
    return lgamma(units + 1) - lgamma(chosen + 1) - lgamma(units - chosen + 1)


def log_at_most(units: int, heads: int) -> float:
    """The logarithm of the chance that so many coins show at most so many heads."""
    each = torch.tensor([log_choices(units, k) for k in range(heads + 1)], dtype=torch.float64)
    return float(each.logsumexp(0)) - units * log(2)


class Chance(NamedTuple):
    """How far from 0 a unit stands by chance.

    Attributes:
        size: the spread of the normal distribution from which each unit is drawn for itself.
    """

    size: float

    def explains(self, middle: torch.Tensor, units: int) -> bool:
        """Whether so many of the units may well stand as far below 0 as these do.

        A coin for each puts n units below with the chance 2^-n. By how far they are, the product of
        the chances of n units is c or less with the chance c · Σ (−log c)^k / k! over k < n
        (Fisher's method). Both for each choice of them.
        """
        if not len(middle):
            return True
        choices = log_choices(units, len(middle))
        if choices - len(middle) * log(2) < UNLIKELY:
            return False
        product = torch.special.log_ndtr(middle.double() / self.size).sum()
        k = torch.arange(len(middle), dtype=product.dtype, device=product.device)
        others = torch.logsumexp(k * (-product).log() - torch.lgamma(k + 1), 0)
        return float(product + others) + choices > UNLIKELY


def chance_of(subject: Subject, serial: int, units: int) -> Chance | None:
    """What chance does in the layer that made a value; None where it cannot be told, as behind a
    sum of two layers.

    Weights drawn at random, and a bias drawn like them, give a unit the spread rms(W) · |(x, 1)|;
    what a normalisation gives has the size that it has without its shift.
    """
    call = _layer(subject.whole, serial)
    if call is None:
        return None
    is_product = call.operator.rpartition(".")[0] in _PRODUCTS
    size = (_of_product if is_product else _of_norm)(subject, call, units)
    return Chance(size) if size else None


def _layer(record: Record, serial: int) -> Call | None:
    """The product or normalisation that made a value, up to views and what all rows get added."""
    for _ in range(_STEPS):
        value = record.values[serial]
        if value.producer < 0:
            return None
        call = record.calls[value.producer]
        if call.operator.rpartition(".")[0] in _PRODUCTS | _NORMS:
            return call
        size = value.elements
        before = [s for s in call.inputs if record.values[s].elements == size]
        if len(before) != 1 or not (call.kind == "view" or call.short.rstrip("_") in _MOVES):
            return None
        serial = before[0]
    return None


def _of_product(subject: Subject, call: Call, units: int) -> float | None:
    factors = [s for s in call.inputs if len(subject.whole.values[s].shape) > 1]
    if len(factors) != 2:
        return None
    given, weight = (_number(subject, serial) for serial in factors)
    if given is None or weight is None:
        return None
    reads = weight.numel() / units
    size = weight.square().mean() * (reads * given.square().mean() + 1)
    return float(size.sqrt())


def _of_norm(subject: Subject, call: Call, units: int) -> float | None:
    after = _number(subject, call.outputs[0])
    if after is None:
        return None
    shift = _number(subject, call.inputs[2]) if len(call.inputs) > 2 else None
    if shift is not None and shift.shape == (units,):
        last = call.operator.rpartition(".")[0] in layer_norm.COVERS
        after = after - (shift if last else shift.view(-1, *(1,) * (after.dim() - 2)))
    return float(after.square().mean().sqrt())


def _number(subject: Subject, serial: int) -> torch.Tensor | None:
    """The numbers of a value, in float32 at least; None where nobody has them."""
    record = subject.whole
    value = record.values[serial]
    found = record.tensors.get(serial)
    if value.origin in ("parameter", "buffer"):
        parts = dict(subject.module.named_parameters()) | dict(subject.module.named_buffers())
        found = parts.get(value.name)
    if found is None or not found.is_floating_point():
        return None
    return found.detach().float() if found.dtype.itemsize < 4 else found.detach()
