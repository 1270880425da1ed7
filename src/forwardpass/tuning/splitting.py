"""Splitting: which layers of a quantized plan stay in full precision.

Errors of layers that are small and independent add up at the outputs as squares. So layers go in
one order, the most error per time saved first, and the question is how many of them to leave out:
a number that is bracketed by measured plans, guessed between them by how the budget was used up as
the sum grew, and halved where a guess did not help. At last single layers are put back that still
fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from forwardpass.nouns.budgets import Keep
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.profiles import Estimate
from forwardpass.nouns.tunings import Evidence, Sensitivity
from forwardpass.tuning import naming

Layers = frozenset[str]

_COARSENING: Final = ("cast", "quantize")
"""Steps after which what they chose is no longer in full precision."""
_PUT_BACK: Final = 3
"""Plans that put single layers back, at most."""
_STEEP: Final = (0.4, 2.5)
"""By which power of the sum of errors a budget is used up, between these: shares that flip go with
its root, cosines with itself; beyond is noise."""
_REACH: Final = 1.5
"""Of the sum of errors that should just fit."""
_UNSTEADY: Final = 0.05
_SPENT: Final = 0.01
"""Of a budget: who uses less up says nothing of where it ends."""


@dataclass(frozen=True)
class Probed:
    """What a plan came to.

    Attributes:
        kept: whether every line of the budget held.
        margins: how far inside its limit each line was, in its own unit; empty where it failed.
        rows: that they were measured on.
        ratio: how many times as fast as the baseline; None where it was not timed.
    """

    kept: bool
    margins: tuple[float, ...]
    rows: int
    ratio: Estimate | None


@dataclass
class Splitting:
    """The search for a split of one quantized plan. Nothing is computed here: `next` names a plan,
    and whoever measures it tells by `learn` what came.

    Attributes:
        plan: that quantizes all layers.
        layers: that may stay in full precision, in the order in which they are left out.
        keeps: the lines of the budget, in the order that evidence has.
        others: paths of further layers that the plan quantizes: they stay so.
        spared: paths of layers that the plan itself leaves in full precision.
        why: why there is no next plan; empty while there may be one.
    """

    plan: Plan
    layers: tuple[Sensitivity, ...]
    keeps: tuple[Keep, ...]
    others: tuple[str, ...] = ()
    spared: tuple[str, ...] = ()
    why: str = ""
    _probed: dict[Layers, Probed] = field(default_factory=dict[Layers, Probed])

    @classmethod
    def of(
        cls,
        plan: str,
        sensitivities: Iterable[Sensitivity],
        keeps: Sequence[Keep],
        others: Iterable[str] = (),
    ) -> Splitting:
        """Of a plan that quantizes; its steps and its arguments stay, and layers that its own
        `where` does not choose stay in full precision.

        Args:
            others: paths of layers that the backend quantizes, and of which no sensitivity is
                known.
        """
        parsed = Plan.parse(plan)
        ordered = sorted(sensitivities, key=lambda one: (-_price(one), one.layer))
        paths = [*(one.layer for one in ordered), *others]
        chosen = set(filter(parsed.backend.selects, paths))
        return cls(
            parsed,
            tuple(one for one in ordered if one.layer in chosen),
            tuple(keeps),
            tuple(path for path in others if path in chosen),
            tuple(path for path in paths if path not in chosen),
        )

    def learn(
        self, plan: str, evidence: Sequence[Evidence] | None, ratio: Estimate | None = None
    ) -> None:
        """What a plan came to: one that `next` gave, the one of all layers, or that of the same
        backend without quantization, which says what there is to be used up of the budget, and how
        fast full precision is. No evidence: it failed."""
        kept, margins = False, ()
        if evidence is not None:
            margins = tuple(map(_margin, evidence, self.keeps))
            kept = all(map(_holds, evidence, margins))
        rows = min((one.rows for one in evidence or ()), default=0)
        self._probed[self._left_out(plan)] = Probed(kept, margins, rows, ratio)

    def next(self, best: float | None = None) -> str | None:
        """The plan to measure next; None where no further one can gain more than the noise of what
        was timed, and `why` says so.

        Args:
            best: the ratio of the fastest plan of any kind that keeps the budget: what is not
                expected to be faster is not tried.
        """
        left = self._next(best)
        return None if left is None else self._spelled(left)

    def told(self, plan: str) -> tuple[Sensitivity, ...]:
        """The layers, the most harmful first, with those marked that a plan, of any kind, has in
        full precision."""
        left, steps = self._left_out(plan), Plan.parse(plan).steps
        coarse = [step for step in steps if step.name in _COARSENING]
        marked = (
            msgspec.structs.replace(
                one, full=one.layer in left and not any(step.selects(one.layer) for step in coarse)
            )
            for one in self.layers
        )
        return tuple(sorted(marked, key=lambda one: (-one.error, one.layer)))

    def _next(self, best: float | None) -> Layers | None:
        count, self.why = len(self.layers), ""
        if self._first(0) not in self._probed:
            return self._first(0)
        if self._probed[self._first(0)].kept:
            return self._ended("all layers may be quantized")
        full = self._probed.get(self._first(count))
        if full is not None and not full.kept:
            return self._ended("the budget is broken in full precision, too")
        if not self._gains(self._first(0), best):
            return self._ended("int8 is not faster beyond noise than what keeps the budget")
        known = [n for n in range(count + 1) if self._first(n) in self._probed]
        kept = min((n for n in known if self._probed[self._first(n)].kept), default=count)
        broken = max(n for n in known if n < kept)
        reach = self._reach() if kept in known and kept < count else math.inf
        between = [
            n
            for n in range(broken + 1, kept)
            if self._sum(self._first(n)) <= reach and self._gains(self._first(n), best)
        ]
        if between:
            return self._first(self._guess(between, len(known)))
        return self._put_back(best)

    def _guess(self, between: Sequence[int], known: int) -> int:
        """How many layers to leave out: so many that the sum of errors should just fit. From the
        third plan on every other one halves what is between, wherever that leads."""
        limit = self._fitting()
        if limit is None or (known > 3 and known % 2):
            return between[len(between) // 2]
        return next((n for n in between if self._sum(self._first(n)) <= limit), between[-1])

    def _put_back(self, best: float | None) -> Layers | None:
        """Single layers put back into int8, the least harmful for what they save first, as long as
        the sum of errors fits: one of them may have been too large, and smaller ones after it."""
        sums = {left: self._sum(left) for left in self._probed}
        kept = max((sums[left] for left, one in self._probed.items() if one.kept), default=0.0)
        broken = [left for left, one in self._probed.items() if not one.kept]
        least = min((sums[left] for left in broken if sums[left] > kept), default=kept)
        limit = self._fitting()
        if limit is None or not kept < limit < least:
            limit = (kept + least) / 2
        left, total = {one.layer for one in self.layers}, 0.0
        for one in reversed(self.layers):
            if total + one.error <= limit:
                left.remove(one.layer)
                total += one.error
        found = frozenset(left)
        singles = sum(not self._is_first(left) for left in self._probed)
        known = found in self._probed or len(found) == len(self.layers)
        known = known or any(found <= other for other in broken)
        if known or singles >= _PUT_BACK or not self._gains(found, best):
            return self._ended("no other split that should fit the budget is faster beyond noise")
        return found

    def _reach(self) -> float:
        """Beyond this sum of errors no split is tried once one has kept the budget."""
        limit = self._fitting()
        return math.inf if limit is None else _REACH * limit

    def _fitting(self) -> float | None:
        """The sum of errors that should just use up the budget; None where no plan tells."""
        free = self._probed.get(self._first(len(self.layers)))
        if free is None or not free.margins:
            return None
        points: list[tuple[float, float]] = []
        for left, one in self._probed.items():
            if one.rows < free.rows:  # bounds are wider there
                continue
            total = self._sum(left)
            spent = [1 - m / f for m, f in zip(one.margins, free.margins, strict=False) if f > 0]
            if total > 0 and spent and _SPENT < max(spent) < math.inf:
                points.append((math.log(total), math.log(max(spent))))
        if not points:
            return None
        points.sort(key=lambda point: abs(point[1]))
        (at, spent), *further = points
        power = 1.0
        if further and abs(further[0][0] - at) > 1e-6:
            slope = (further[0][1] - spent) / (further[0][0] - at)
            power = min(max(slope, _STEEP[0]), _STEEP[1])
        return math.exp(at - spent / power)

    def _gains(self, left: Layers, best: float | None) -> bool:
        """Whether a split should be faster, beyond noise, than all that is known to keep the
        budget."""
        own = self._seconds(left)
        if own is None:
            return True
        had = [self._seconds(other) for other, one in self._probed.items() if one.kept]
        if best is not None:
            had.append(1 / best)
        least = min((seconds for seconds in had if seconds is not None), default=math.inf)
        return own * (1 + self._noise()) < least

    def _seconds(self, left: Layers) -> float | None:
        """What a split should take, the baseline taking 1: between all layers in int8 and none, by
        its share of the multiplications. None where these were not timed."""
        ends = [self._probed.get(self._first(n)) for n in (0, len(self.layers))]
        ratios = [one.ratio.median for one in ends if one is not None and one.ratio is not None]
        if len(ratios) < 2 or min(ratios) <= 0:
            return None
        fast, slow = (1 / ratio for ratio in ratios)
        whole = sum(one.share for one in self.layers)
        share = sum(one.share for one in self.layers if one.layer in left)
        return fast + (slow - fast) * (share / whole if whole else len(left) / len(self.layers))

    def _noise(self) -> float:
        """Half of the widest interval of what was timed, as a share; no more than what a count of
        multiplications is off by, however unsteady the clock."""
        ratios = [one.ratio for one in self._probed.values() if one.ratio is not None]
        widths = ((r.high - r.low) / 2 / r.median for r in ratios if r.median > 0)
        return min(max(widths, default=0.0), _UNSTEADY)

    def _sum(self, left: Layers) -> float:
        return sum(one.error for one in self.layers if one.layer not in left)

    def _first(self, count: int) -> Layers:
        return frozenset(one.layer for one in self.layers[:count])

    def _is_first(self, left: Layers) -> bool:
        return left == self._first(len(left))

    def _ended(self, why: str) -> None:
        self.why = why

    def _spelled(self, left: Layers) -> str:
        if not left:
            return str(self.plan)
        whole = [*(one.layer for one in self.layers), *self.others]
        wanted = {path for path in whole if path not in left}
        where = naming.chosen(wanted, [*whole, *self.spared])
        backend = msgspec.structs.replace(self.plan.backend, where=where)
        return str(msgspec.structs.replace(self.plan, backend=backend))

    def _left_out(self, plan: str) -> Layers:
        """The layers that a plan has in full precision: all, where it quantizes nothing."""
        backend = Plan.parse(plan).backend
        quantizes = any(one.text == "int8" for one in backend.arguments)
        return frozenset(
            one.layer for one in self.layers if not (quantizes and backend.selects(one.layer))
        )


def _price(one: Sensitivity) -> float:
    """Error per time saved."""
    return one.error / one.share if one.share > 0 else math.inf


def _margin(one: Evidence, keep: Keep) -> float:
    came = one.value if one.bound is None else one.bound
    return came - one.limit if keep.sign == ">=" else one.limit - came


def _holds(one: Evidence, margin: float) -> bool:
    """Whether a line is kept. Minima are only reported, and nothing proves them: what was seen
    counts."""
    return one.holds == "kept" or (one.bound is None and margin >= 0)
