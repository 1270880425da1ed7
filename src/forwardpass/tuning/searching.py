"""The search: which plans are tried, in which order, and which of them go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from forwardpass.building.opening import one_at_a_time
from forwardpass.nouns.machines import Machine
from forwardpass.nouns.plans import Plan, Step
from forwardpass.nouns.profiles import Estimate
from forwardpass.nouns.programs import Trust
from forwardpass.nouns.tunings import Evidence, Trial
from forwardpass.tuning.candidates import (
    Idea,
    ideas,
    is_quantized,
    threaded,
    threads_of,
)
from forwardpass.tuning.workbenches import NO_TIME, Workbench, beyond
from forwardpass.tuning.workshops import Candidate

_SCREEN_SECONDS: Final = 2.5
"""Of a contest of one plan and the baseline, when a plan is looked at first."""
_TIMED_SECONDS: Final = 2.0
"""A contender, when those that are left are timed together."""
_LEFT: Final = 4
"""Plans that go on from few rows to all."""
_SPLIT: Final = 2
"""Quantized plans that break the budget and are split by layers, the fastest."""
_COARSENED: Final = 2
"""Backends on which a module of less precision is tried, the fastest."""


class Split(Protocol):
    """Proposes plans that leave layers of a quantized plan in full precision."""

    def learn(
        self, plan: str, evidence: Sequence[Evidence] | None, ratio: Estimate | None = None
    ) -> None:
        """What a plan came to; None: it failed."""
        ...

    def next(self, best: float | None = None) -> str | None:
        """The plan to try next, which may be faster than `best` × the baseline; None: no more."""
        ...


Splits = Callable[[Candidate], Split | None]
"""Of a quantized plan that was made; None where its layers cannot be told apart."""


class PlanSearch:
    """Goes from few rows to all of the search part.

    Attributes:
        given: the plan that the Forward had: its steps come before all others, and a number of
            threads that it fixes is that of every plan.
    """

    def __init__(
        self,
        bench: Workbench,
        given: Plan,
        machine: Machine,
        trust: Trust,
        splits: Splits,
    ) -> None:
        self.bench, self.given = bench, given
        self._trust: Trust = trust
        self._machine, self._splits = machine, splits

    def run(self, prefix: tuple[Step, ...]) -> None:
        """Try what there is, while there is time; the bench has the trials.

        Args:
            prefix: steps that change something here, and lose nothing.
        """
        steps = (*self.given.steps, *prefix)
        found = list(
            ideas(steps, self._machine, self._trust, threads_of(one_at_a_time(self.given)))
        )
        coarser = [idea for idea in found if idea.kind == "coarser"]
        gate = self.bench.deadline.reserve

        def look_at(idea: Idea) -> None:
            """Try it, unless the best so far needs the time to be proved."""
            self.bench.deadline.reserve = gate + self._whole_seconds()
            self._try(idea)

        for idea in found:
            if idea.kind != "coarser":
                look_at(idea)
        quick = self._backends()[:_COARSENED]
        for idea in coarser:
            name = idea.plan.backend.name
            if name in quick:
                look_at(idea)
            elif not idea.why_not:
                why = NO_TIME
                if quick:
                    why = f"{name} is not among the fastest in full precision ({', '.join(quick)})"
                self.bench.set(str(idea.plan), fate="not tried", why=why)
        self.bench.deadline.reserve = gate
        self._narrow(_LEFT)
        self._mix()
        self._vary()
        self._narrow(_LEFT)

    def kept(self) -> list[Trial]:
        """The trials that may still be chosen, the best first."""
        alive = [
            trial for trial in self.bench.trials.values()
            if trial.fate == "kept" and trial.stage in ("few rows", "search")
            and beyond(trial) is None and self.bench.gain(trial.plan) is not None
        ]  # fmt: skip
        return sorted(alive, key=self._median, reverse=True)

    def _try(self, idea: Idea) -> Trial:
        """Screen a plan; where its steps do not go with its backend, the plan without them."""
        plan, bench = idea.plan, self.bench
        if idea.why_not:
            return bench.set(str(plan), fate="not tried", why=idea.why_not)
        about = f"{plan.backend.name} {idea.kind}"
        trial = bench.screen(str(plan), about, _SCREEN_SECONDS)
        gone = not trial.stage and trial.fate != "kept" and not trial.why.startswith(NO_TIME)
        bare = Plan(self.given.steps, plan.backend)
        if gone and idea.kind != "coarser" and plan.backend.name != "eager" and bare != plan:
            trial = bench.screen(str(bare), about, _SCREEN_SECONDS)
        self._tell()
        return trial

    def _tell(self) -> None:
        """Say the best so far to who watches."""
        best = next(iter(self.kept()), None)
        if best is not None:
            self.bench.steps.best = f"{self._median(best):.2f} × {best.plan}"

    def _backends(self) -> list[str]:
        """Those that computed in full precision, the fastest first."""
        plans = [Plan.parse(trial.plan) for trial in self.kept()]
        return list(dict.fromkeys(p.backend.name for p in plans if not is_quantized(p)))

    def _vary(self) -> None:
        """Try the best plan with other numbers of threads, for which its graph is only opened
        anew, and without its steps."""
        for best in self.kept()[:1]:
            plan = Plan.parse(best.plan)
            added = [step for step in plan.steps if step not in self.given.steps]
            without = [tuple(s for s in plan.steps if s != one) for one in added]
            if len(added) > 1:
                without.insert(0, self.given.steps)
            others = [Plan(steps, plan.backend) for steps in without]
            apart = self.bench.aim.batch is None
            for other in (*threaded(plan, self._machine, apart=apart), *others):
                self._whole([str(other)])

    def _narrow(self, most: int) -> None:
        """Drop what others are certainly better than, and hold the best against all rows."""
        bench = self.bench
        alive = self.kept()
        for trial in alive:
            if (better := self._better(trial)) is not None:
                self._drop(trial, better)
        alive = self.kept()
        if bench.aim.goal != "pareto":
            for trial in alive[most:]:
                self._drop(trial, alive[0])
            alive = alive[:most]
        self._whole([trial.plan for trial in alive if trial.stage != "search"])

    def _whole(self, plans: Sequence[str]) -> None:
        """Hold plans against all rows of the search part, and time them together."""
        bench = self.bench
        computed: list[str] = []
        for plan in plans:
            parsed = Plan.parse(plan)
            kind = "int8" if is_quantized(parsed) else "full"
            trial = bench.screen(plan, f"{parsed.backend.name} {kind}", _SCREEN_SECONDS)
            if trial.fate != "kept" or trial.stage != "few rows" or beyond(trial) is not None:
                continue
            better = self._better(trial)
            if better is not None:
                self._drop(trial, better)
            elif self._computed(plan, trial.ratio):
                computed.append(plan)
        for start in range(0, len(computed), _LEFT):
            group = computed[start : start + _LEFT]
            seconds = _TIMED_SECONDS * (1 + len(group))
            if bench.deadline.fits(seconds):
                bench.steps.begin(f"timing {len(group)} plans side by side", 1)
                bench.timed(group, seconds)
        for plan in computed:
            trial = bench.trials[plan]
            if trial.fate == "kept":
                doubt = beyond(trial) or self._hopeless(trial)
                bench.settle(
                    plan, stage="search", fate="dropped" if doubt else "kept",
                    why=doubt.why if doubt else "keeps the budget on the search rows",
                )  # fmt: skip
        self._tell()

    def _whole_seconds(self) -> float:
        """That the best so far will take for all search rows, and beside the baseline."""
        best = self._best()
        return self.bench.predicted("search", best) + 2 * _TIMED_SECONDS if best else 0.0

    def _better(self, trial: Trial) -> Trial | None:
        """One that may be chosen, and is better for certain."""
        aim, base = self.bench.aim, self.bench.base
        return next((one for one in self.kept() if aim.dominates(one, trial, base)), None)

    def _hopeless(self, trial: Trial) -> Evidence | None:
        """A line of the budget that the rows of the final part would not prove, either."""
        rows = self.bench.rows["final"]
        return next(
            (o for o in trial.kept if o.holds != "kept" and (o.needed is None or o.needed > rows)),
            None,
        )

    def _computed(self, plan: str, ratio: Estimate | None) -> bool:
        """Whether a plan computed all search rows; else it stays where it was, or is gone."""
        bench = self.bench
        rows = bench.rows["search"]
        if not bench.deadline.fits(bench.predicted("search", ratio.median if ratio else 1.0)):
            return False
        bench.steps.begin(f"{plan} on {rows:,} rows", 1)
        bench.workshop.until = bench.deadline.last_trial
        return bench.make(plan) is not None and bench.judged(plan, "search", rows)

    def _mix(self) -> None:
        """Split the fastest quantized plans that break the budget by layers."""
        bench = self.bench
        broken = [
            trial for trial in bench.trials.values()
            if trial.ratio is not None and is_quantized(Plan.parse(trial.plan))
            and (beyond(trial) or (trial.stage == "search" and self._hopeless(trial)))
            and self._better(trial) is None
        ]  # fmt: skip
        for trial in sorted(broken, key=self._median, reverse=True)[:_SPLIT]:
            if not bench.deadline.fits(_SCREEN_SECONDS) or bench.make(trial.plan) is None:
                continue
            bench.steps.begin(f"layers of {trial.plan}", 1)
            split = self._splits(bench.made[trial.plan])
            if split is not None:
                self._follow(split, trial)

    def _follow(self, split: Split, whole: Trial) -> None:
        """Try what a split proposes, until it has nothing more or there is no time."""
        bench = self.bench
        backend = Plan.parse(whole.plan).backend.name
        for known in (whole, self._in_full(backend)):
            if known is not None and bench.make(known.plan) is not None:
                self._computed(known.plan, known.ratio)  # all are compared on the same rows
                known = bench.trials[known.plan]
                split.learn(known.plan, known.kept, known.ratio)
        while (plan := split.next(self._best())) is not None:
            self._whole([plan])
            came = bench.trials[plan]
            if came.fate == "not tried" or not bench.deadline.fits(_SCREEN_SECONDS):
                break
            split.learn(plan, came.kept or None, came.ratio)

    def _in_full(self, backend: str) -> Trial | None:
        """The trial of a backend in full precision."""
        for trial in reversed(self.bench.trials.values()):
            plan = Plan.parse(trial.plan)
            same = plan.backend.name == backend and not is_quantized(plan)
            if same and trial.ratio is not None and beyond(trial) is None:
                return trial
        return None

    def _best(self) -> float | None:
        """How many times as fast as the baseline the best is that may be chosen."""
        ratios = [trial.ratio.median for trial in self.kept() if trial.ratio is not None]
        return max(ratios, default=None)

    def _drop(self, trial: Trial, better: Trial) -> None:
        own, its = self._median(trial), self._median(better)
        why = f"{own:.2f} × {self.bench.aim.than_baseline}, and {better.plan} is {its:.2f} ×"
        self.bench.settle(trial.plan, fate="dropped", why=why)

    def _median(self, trial: Trial) -> float:
        gain = self.bench.gain(trial.plan)
        return gain.median if gain is not None else 0.0
