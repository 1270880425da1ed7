"""Uses: how a script used a model, by the lines that called it, and what range they gave it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from forwardpass.nouns.calls import Site
from forwardpass.nouns.records import Record

LARGE, SMALL = 10.0, 1 / 50
"""Times what was expected, beyond which numbers are in another unit: units differ by 100, 255 or
1,000, and their inverses, which lie beyond both; other data of the same unit, brighter or darker,
lies between."""


@dataclass
class Span:
    """In which range numbers were given: least and greatest, and over the passes the least and
    greatest of their largest magnitude and of their standard deviation.

    Constants have no unit, and are not seen.
    """

    floating: bool = True
    low: float = float("inf")
    high: float = float("-inf")
    extents: tuple[float, float] = (float("inf"), 0.0)
    spreads: tuple[float, float] = (float("inf"), 0.0)

    def see(self, tensor: torch.Tensor) -> None:
        """Take the numbers of one pass into account."""
        if tensor.layout is not torch.strided or tensor.is_nested or tensor.device.type == "meta":
            return
        kept = tensor.dtype.is_complex or tensor.dtype == torch.bool or tensor.is_quantized
        if (
            kept
            or tensor.numel() < 2
            or (tensor.dtype.itemsize == 1 and tensor.is_floating_point())
        ):
            return
        numbers = tensor.detach().double()
        low, high = (value.item() for value in numbers.aminmax())
        spread = numbers.std(correction=0).item()
        extent = max(abs(low), abs(high))
        if not 0 < spread < float("inf"):
            return
        self.floating &= tensor.is_floating_point()
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.extents = min(self.extents[0], extent), max(self.extents[1], extent)
        self.spreads = min(self.spreads[0], spread), max(self.spreads[1], spread)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was seen."""
        return self.low > self.high

    @classmethod
    def joined(cls, spans: Iterable[Span]) -> Span:
        """What several lines gave together."""
        whole = cls()
        for span in spans:
            whole.floating &= span.floating
            whole.low, whole.high = min(whole.low, span.low), max(whole.high, span.high)
            whole.extents = _wider(whole.extents, span.extents)
            whole.spreads = _wider(whole.spreads, span.spreads)
        return whole

    def times(self, seen: Span) -> float:
        """How many times the spread of `seen` this is where all passes are in another unit than all
        of `seen`, both by their largest magnitude and by their spread; else 1."""
        pairs = (self.extents, seen.extents), (self.spreads, seen.spreads)
        if all(mine[0] > LARGE * other[1] for mine, other in pairs):
            return self.spreads[0] / seen.spreads[1]
        if all(mine[1] < SMALL * other[0] for mine, other in pairs):
            return self.spreads[1] / seen.spreads[0]
        return 1.0

    def __str__(self) -> str:
        return f"from {self.low:.3g} to {self.high:.3g}"


def _wider(one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    return min(one[0], other[0]), max(one[1], other[1])


@dataclass
class CallingLine:
    """A line of a script that called a model in one mode and grad setting.

    Attributes:
        times: passes, those that were not recorded, too.
        last: the number of the last of them among all passes of the script.
        learned: whether backward went through a pass from this line, in whatever mode.
        idle: whether nothing was learned from it, nor anything after it: no backward came once its
            last pass was made. What comes of a pass may be a target, or what another model learns
            from (`generator(noise).detach()`); then a backward follows.
        spans: the ranges of the inputs by path, of its first passes.
    """

    site: Site
    mode: str
    grad: str
    times: int = 0
    last: int = 0
    learned: bool = False
    idle: bool = False
    spans: dict[str, Span] = field(default_factory=dict[str, Span])

    def is_like(self, record: Record) -> bool:
        """Whether its passes are in the mode and grad setting of this one."""
        return (self.mode, self.grad) == (record.mode, record.grad)
