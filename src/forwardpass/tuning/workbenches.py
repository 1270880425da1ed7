"""Workbench: plans are made, held against the budget, and timed beside the baseline; each stands on
it as a Trial."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

import msgspec

from forwardpass.building.opening import sharing_graph
from forwardpass.measuring.timings import Ratio, Timing, Trusted, ratio, timing
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.profiles import Estimate
from forwardpass.nouns.programs import TRUSTED, Trust
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.tunings import Evidence, Trial
from forwardpass.tuning.aims import Aim
from forwardpass.tuning.deadlines import Deadline
from forwardpass.tuning.functions import MetricError
from forwardpass.tuning.ledgers import Ledger
from forwardpass.tuning.workshops import (
    SIZING_SECONDS,
    Candidate,
    Outputs,
    PartName,
    PassingTrialError,
    RefusedTrialError,
    Rounds,
    TrialError,
    Workshop,
)


class Judge(Protocol):
    """Holds outputs against a budget."""

    def __call__(
        self, baseline: Outputs, came: Outputs, part: PartName, looks: int
    ) -> tuple[Evidence, ...]:
        """Each line of the budget, by outputs of the first rows of a part at which so many plans
        are looked at in all."""
        ...

    def require_kept(self, baseline: Outputs, part: PartName) -> None:
        """Raises UsageError where the baseline itself breaks the budget."""
        ...


NO_TIME: Final = "there was no time for it"
"""So begins why a plan was not tried that another call would try."""
_TURN_SECONDS: Final = 0.7
"""Of the baseline, about, in one turn of a contest."""
_FEW, _FEWEST = 64, 8
"""Rows on which a plan is looked at first; and where time is short, at least."""
_FEW_SHARE: Final = 0.02
"""Of the time that is left, what the baseline may take of these rows."""


class Workbench:
    """What was tried, and what is needed to try more.

    Attributes:
        baseline: the Forward as given; `base` is its trial.
        rows: of each part of the data.
        trials: by plan, in the order in which they began. made: those that have an artefact.
        rate: rows a second of the baseline, about; 0 until it was timed.
        opening_seconds: of a fresh process, until it has computed, about.
        judging_seconds_per_row: that holding outputs against the budget takes at most: functions of
            the user's may take long.
        trusted: which clock is, and why.
        admitted: the class of artefacts that may be opened at most.
    """

    def __init__(
        self,
        workshop: Workshop,
        baseline: Candidate,
        rows: Mapping[PartName, int],
        judge: Judge,
        aim: Aim,
        deadline: Deadline,
        ledger: Ledger,
        steps: Steps,
    ) -> None:
        self.workshop, self.baseline, self.rows = workshop, baseline, rows
        self.judge, self.aim, self.deadline = judge, aim, deadline
        self.ledger, self.steps = ledger, steps
        self.trials: dict[str, Trial] = {}
        self.made: dict[str, Candidate] = {}
        self.base = Trial(plan=baseline.plan, fate="kept", why="as it was given", stage="search")
        self.rate = self.opening_seconds = self.judging_seconds_per_row = 0.0
        self.trusted = Trusted("wall", "nothing was timed")
        self.admitted: Trust = "native"
        self._took: dict[str, float] = {}
        self._graphs: set[str] = set()
        self._references: dict[PartName, tuple[int, Outputs]] = {}

    @property
    def few(self) -> int:
        """Rows of the search part on which a plan is looked at first."""
        left = self.deadline.end - self.deadline.now
        quick = _FEW if math.isinf(left) else int(_FEW_SHARE * left * self.rate)
        return min(_FEW, self.rows["search"], max(_FEWEST, quick))

    def gain(self, plan: str) -> Estimate | None:
        """How many times as good as the baseline a plan is, by the goal."""
        return self.aim.gain(self.trials[plan], self.base)

    def reference(self, part: PartName, rows: int) -> Outputs:
        """What the baseline makes of the first rows of a part; computed once. Raises TrialError."""
        count, known = self._references.get(part, (0, {}))
        if count < rows:
            known = self.workshop.outputs(self.baseline, part, rows)
            self._references[part] = rows, known
        return {name: values[:rows] for name, values in known.items()}

    def predicted(self, part: PartName, ratio: float = 1.0) -> float:
        """Seconds, about, until a plan that is so many times as fast as the baseline has computed
        all rows of a part and is judged, with the baseline where that has not computed them."""
        rows, (known, _) = self.rows[part], self._references.get(part, (0, {}))
        passes = 1.0 / ratio + (known < rows)
        return rows * ((passes / self.rate if self.rate else 0.0) + self.judging_seconds_per_row)

    def begin(self, seconds: float) -> None:
        """Time the baseline by itself. Raises TrialError."""
        self.workshop.until = self.deadline.end
        began = self.deadline.now
        (rounds,) = self.workshop.contest(
            [self.baseline], "search", min(_FEWEST, self.few), seconds=seconds / 2, fresh=True
        )
        self.opening_seconds = max(0.0, self.deadline.now - began - seconds / 2)
        self.rate = rounds.rows / _timing(rounds).median
        (rounds,) = self.contest((), "search", seconds / 2)
        if self.aim.batch is None:  # rows enough for batches as large as they will be
            self.rate = rounds.rows / _timing(rounds).median
        self._learn_base(rounds)

    def set(self, plan: str, **known: Any) -> Trial:
        """What is known of a plan now."""
        trial = self.trials.get(plan) or Trial(plan=plan, fate="kept", why="")
        self.trials[plan] = msgspec.structs.replace(trial, **known)
        return self.trials[plan]

    def settle(self, plan: str, **known: Any) -> Trial:
        """The same, and it is a line of the ledger."""
        trial = self.set(plan, **known)
        self.ledger.write(trial)
        return trial

    def screen(self, plan: str, about: str, seconds: float) -> Trial:
        """Try a plan on few rows, unless that was done.

        Args:
            about: what other plans of about as long a making share; those that differ only in how
                their graph is opened are another such kind.
        """
        known = self.trials.get(plan)
        if known is not None and (known.fate != "kept" or known.stage != "made"):
            return known
        if (before := self.ledger.known.get(plan)) is not None:
            self.trials[plan] = before
            return before
        if _graph(plan) in self._graphs:
            about = f"{about}, opened otherwise"
        self.steps.begin(f"{plan} on few rows", 1)
        if not self.deadline.fits(self._took.get(about, 0.0) + seconds):
            return self.set(plan, fate="not tried", why=NO_TIME)
        self.workshop.until = self.deadline.last_trial
        if self.make(plan, about) is None or not self.judged(plan, "search", self.few):
            return self.trials[plan]
        self.timed([plan], seconds)
        if self.trials[plan].fate != "kept":
            return self.trials[plan]
        broken = beyond(self.trials[plan])
        if broken is not None and broken.holds == "broken":
            return self.settle(plan, fate="dropped", why=broken.why, stage="few rows")
        return self.settle(plan, why="tried on few rows", stage="few rows")

    def make(self, plan: str, about: str = "") -> Candidate | None:
        """Make a plan, or take what was made of it; None where that fails, which is noted."""
        if plan in self.made:
            return self.made[plan]
        began = self.deadline.now
        try:
            made = self.workshop.make(plan)
        except TrialError as error:
            self._failed(plan, error)
            return None
        if TRUSTED.index(made.trust) > TRUSTED.index(self.admitted):
            why = f"opening its artefact needs --trust {made.trust}"
            self.settle(plan, fate="not tried", why=why, trust=made.trust)
            return None
        self.made[plan] = made
        self._took[about] = max(self._took.get(about, 0.0), self.deadline.now - began)
        self._graphs.add(_graph(plan))
        begun = {} if plan in self.trials else {"why": "made", "stage": "made"}
        self.set(
            plan, **begun, artefact_bytes=made.bytes, build_seconds=made.seconds, trust=made.trust,
            did=made.did,
        )  # fmt: skip
        return made

    def judged(self, plan: str, part: PartName, rows: int, looks: int = 1) -> bool:
        """Hold a plan that was made against the budget; whether it computed these rows."""
        try:
            reference = self.reference(part, rows)
            came = self.workshop.outputs(self.made[plan], part, rows)
            with self._judging(rows):
                kept = self.judge(reference, came, part, looks)
        except TrialError as error:
            self._failed(plan, error)
            return False
        except MetricError as error:
            self._failed(plan, TrialError(str(error)))
            return False
        self.set(plan, kept=kept)
        return True

    def require_kept(self, part: PartName) -> None:
        """Raises UsageError where the baseline itself breaks the budget; TrialError."""
        rows = self.rows[part]
        reference = self.reference(part, rows)
        with self._judging(rows):
            self.judge.require_kept(reference, part)

    @contextmanager
    def _judging(self, rows: int) -> Generator[None]:
        began = self.deadline.now
        yield
        each = (self.deadline.now - began) / max(rows, 1)
        self.judging_seconds_per_row = max(self.judging_seconds_per_row, each)

    def timed(self, plans: Sequence[str], seconds: float) -> None:
        """Time plans that were made in turns with the baseline; those that fail are noted."""
        try:
            base, *others = self.contest([self.made[plan] for plan in plans], "search", seconds)
        except TrialError as error:
            if len(plans) == 1:
                self._failed(plans[0], error)
                return
            for plan in plans:  # one of them is to blame: each for itself
                self.timed([plan], 2 * seconds / (1 + len(plans)))
            return
        self._learn_base(base)
        for plan, mine in zip(plans, others, strict=True):
            self.set(plan, **self.figures(base, mine))

    def contest(
        self, others: Sequence[Candidate], part: PartName, seconds: float, *, fresh: bool = False,
        sizing_seconds: float = SIZING_SECONDS,
    ) -> list[Rounds]:  # fmt: skip
        """Rounds of the baseline, which comes first, and of others. Raises TrialError."""
        return self.workshop.contest(
            [self.baseline, *others], part, self._turn_rows(part), batch=self.aim.batch,
            seconds=seconds, fresh=fresh, sizing_seconds=sizing_seconds,
        )  # fmt: skip

    def figures(self, base: Rounds, mine: Rounds) -> dict[str, Any]:
        """What rounds beside the baseline's say of a plan, as a Trial has it."""
        own = self._clocked(_timing(mine), mine.threads)
        rows = self.aim.batch or mine.rows
        found = self.ratio([base], [mine])
        return {
            "ratio": Estimate(found.median, found.low, found.high),
            "first_seconds": mine.first_seconds,
            "peak_bytes": mine.peak_bytes,
            "rows_per_second": Estimate(rows / own.median, rows / own.high, rows / own.low),
            "seconds_per_batch": own.estimate if self.aim.batch else None,
        }

    def ratio(self, base: Sequence[Rounds], mine: Sequence[Rounds], noise: float = 0.0) -> Ratio:
        """How many times longer the baseline takes; by CPU seconds where each has one thread."""
        threads = 1 if all(one.threads == 1 for one in (*base, *mine)) else 0
        one, other = (self._clocked(_timing(*rounds), threads) for rounds in (base, mine))
        return ratio(one, other, noise)

    def _turn_rows(self, part: PartName) -> int:
        wanted = math.ceil(self.rate * _TURN_SECONDS) or self.few
        return max(1, min(self.rows[part], wanted))

    def _learn_base(self, rounds: Rounds) -> None:
        self.trusted = _timing(rounds).trust(rounds.threads)
        known = self.figures(rounds, rounds) | {"ratio": None}
        self.base = msgspec.structs.replace(self.base, **known)

    def _clocked(self, own: Timing, threads: int) -> Timing:
        return own.cpu if threads == 1 and self.trusted.clock == "cpu" else own

    def _failed(self, plan: str, error: TrialError) -> None:
        if isinstance(error, PassingTrialError):
            self.set(plan, fate="not tried", why=str(error))
        elif self.deadline.now >= self.workshop.until:
            known = self.trials.get(plan)
            stood = known is not None and known.stage in ("few rows", "search")
            fate = known.fate if known is not None and stood else "not tried"
            self.set(plan, fate=fate, why=f"{NO_TIME}: {error}")  # another call may try it
        else:
            fate = "not tried" if isinstance(error, RefusedTrialError) else "failed"
            self.settle(plan, fate=fate, why=str(error))


def _graph(plan: str) -> str:
    """What plans share that differ only in how their graph is opened."""
    return str(sharing_graph(Plan.parse(plan)))


def beyond(trial: Trial) -> Evidence | None:
    """The line of the budget that a plan breaks for certain, else one that it seems to break; None
    where it seems to keep all."""
    unmet = [one for one in trial.kept if not one.is_met]
    return next((one for one in trial.kept if one.holds == "broken"), next(iter(unmet), None))


def _timing(*rounds: Rounds) -> Timing:
    turns = [turn for one in rounds for turn in one.turns]
    return msgspec.structs.replace(
        timing([turn.seconds for turn in turns]),
        cpu_samples=tuple(turn.cpu_seconds for turn in turns),
    )
