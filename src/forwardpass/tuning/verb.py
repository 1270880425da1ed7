"""The verb: its arguments, what it leaves on disk, and the Tuning."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from forwardpass.durable import written
from forwardpass.errors import DataError, OutputExistsError, PassError, UsageError, nearest
from forwardpass.exporting.folders import whole_or_not_there
from forwardpass.loading import load
from forwardpass.measuring.machines import machine
from forwardpass.nouns.budgets import Keep, budget
from forwardpass.nouns.forwards import Forward, ForwardLike
from forwardpass.nouns.plans import Plan, Step
from forwardpass.nouns.programs import TRUSTED, Trust
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.rows import Rows
from forwardpass.nouns.tunings import Tuning
from forwardpass.preparing.identity import digest
from forwardpass.preparing.preparing import built
from forwardpass.tensors.arrays import joined
from forwardpass.tensors.generators import generators_kept
from forwardpass.tensors.threads import operator_threads
from forwardpass.tuning import parts
from forwardpass.tuning.accounts import beside, limit_share, pays_after_rows, require_repeatable
from forwardpass.tuning.aims import Aim
from forwardpass.tuning.candidates import lossless
from forwardpass.tuning.conducting import Conducted, conducted, out_of_time
from forwardpass.tuning.deadlines import Deadline
from forwardpass.tuning.defaults import defaults
from forwardpass.tuning.functions import identities, require_answerable
from forwardpass.tuning.gauges import Gauge
from forwardpass.tuning.labels import Labels, labels_of
from forwardpass.tuning.layering import Layering
from forwardpass.tuning.ledgers import TRIALS, Ledger, begun
from forwardpass.tuning.parts import DataParts
from forwardpass.tuning.shops import opened
from forwardpass.tuning.workbenches import Workbench
from forwardpass.tuning.workshops import Candidate, Outputs, PartName, TrialError, Workshop

TUNING: Final = "tuning.json"
_EDITION: Final = 1
"""Of how trials are made and judged; a new one makes old lines stale."""
_ENDING: Final = ".tuning"
_PLACES: Final = ("parts", "made")
"""Folders that a call leaves only if it is killed."""
_SHARE_SECONDS: Final = 3.0
"""Of measuring what this machine can do, where that is not known."""
_NOT_IN_NAME: Final = re.compile(r"[^\w.-]")
_KINDS: Final = 64
"""Rows by which the kind of the outputs is told."""


@generators_kept()
def tune(
    forward: ForwardLike,
    data: object,
    *,
    keep: Any = None,
    goal: str = "throughput",
    label: str | None = None,
    columns: Mapping[str, str] | None = None,
    minutes: float | None = None,
    trust: Trust = "data",
    out: str | os.PathLike[str] | None = None,
    rows: int = parts.ROWS,
    progress: Steps | None = None,
) -> Tuning:
    """The fastest way to compute a Forward that keeps its accuracy, and the evidence.

    The Forward as given is the baseline. Plans are made, computed and timed beside it, in processes
    that may crash. What is chosen keeps each line of the budget on rows that no trial has seen,
    by its 95 % confidence bound, and is better beyond noise; else it is the plan that was given.

    Args:
        forward: a reference with its plan, a module, a Model or a Forward.
        data: rows as `run` reads them.
        keep: lines of the budget, `"cosine.mean >= 0.995"`, or `(function, ">= 0.9")`; by default
            what the outputs call for.
        goal: "throughput", "latency:8", "memory", "size" or "pareto".
        label: the column of what is right, for `accuracy` and functions. columns: which column
            feeds which input, where names differ.
        minutes: that it may take at most; the best so far stands then.
        trust: what opening the artefact may execute at most, "data", "code" or "native".
        out: the artefact, `NAME.fwd`; trials are kept in `NAME.fwd.tuning`, and a second call
            goes on from there. None: nothing is left.
        rows: of the data, the first so many.

    Raises:
        UsageError: an argument; a budget that cannot be read, contradicts itself, or is broken by
            the baseline; a model that computes otherwise each time. OutputExistsError: `out`.
        LoadError, DataError, PassError: the model, the data or the disk, the baseline's pass.
    """
    aim, keeps = Aim.parse(goal), () if keep is None else budget(keep)
    require_answerable(keeps, label is not None)
    path = _checked(out, minutes, trust)
    steps = progress or Steps()
    deadline = Deadline(None if minutes is None else 60 * minutes)
    steps.begin("the data", 1)
    loaded = load(forward)
    sha256 = digest(loaded)  # from before a row was encoded
    with _work(path) as folder:
        given = parts.split(
            loaded, data, folder / _PLACES[0], rows=rows, label=label, columns=columns
        )
        asked = _identity(
            sha256,
            given.digest,
            machine().digest,
            *_versions(),
            str(operator_threads()),
            str(aim),
            trust,
            *map(str, keeps),
        )
        if path is not None and path.exists() and not begun(folder, asked):
            raise _there(path)  # by a tuning of something else that was interrupted
        try:
            workshop, given, notes = opened(given, folder / _PLACES[1], until=deadline.end)
        except PassError as error:
            raise (out_of_time(deadline) if deadline.now >= deadline.end else error) from error
        with closing(workshop):
            premises = (*map(str, given.rows.values()), *identities(keeps))
            ledger = Ledger(folder, asked, premises)
            session = _Session(loaded, given, aim, keeps, trust, deadline, ledger, steps)
            tuning = session.run(workshop, label, path, notes)
        return _told(tuning, folder)


@dataclass(frozen=True)
class _Session:
    """What does not change while a Forward is tuned."""

    forward: Forward
    parts: DataParts
    aim: Aim
    keeps: tuple[Keep, ...]
    trust: Trust
    deadline: Deadline
    ledger: Ledger
    steps: Steps

    def run(
        self, workshop: Workshop, label: str | None, out: Path | None, told: tuple[str, ...]
    ) -> Tuning:
        given, steps = self.parts, self.steps
        baseline = Candidate(str(self.forward.plan), None)
        steps.begin("the baseline", 1)
        plain = Forward(given.forward.model, Plan())
        engine = built(plain, given.blocks["calibration"])
        require_repeatable(engine, given.blocks["calibration"])
        try:
            few = workshop.outputs(baseline, "search", min(_KINDS, given.rows["search"]))
        except TrialError as error:
            if self.deadline.now >= self.deadline.end:
                raise out_of_time(self.deadline) from error
            raise PassError(f"{baseline.plan} cannot be computed: {error}") from error
        labels = self._labels(label)
        notes = [*given.notes, *told]
        keeps = self.keeps or self._defaults(few, labels, notes)
        bench = Workbench(
            workshop, baseline, given.rows, Gauge(keeps, labels), self.aim, self.deadline,
            self.ledger, steps,
        )  # fmt: skip
        layers = Layering(given.forward, given.blocks["calibration"], keeps, self.deadline)

        def prefix() -> tuple[Step, ...]:
            block, fits = given.blocks["calibration"], self.deadline.fits
            found, refused = lossless(given.forward, block, fits)
            for step, why in refused.items():
                bench.set(f"| {step} @ eager", fate="not tried", why=why)
            return found

        came = conducted(bench, self.forward.plan, prefix, machine(), self.trust, layers)
        left = _left(came, out)
        trials = {plan: beside(one, bench.base) for plan, one in bench.trials.items()}
        chosen = trials.get(came.choice.plan, bench.base)
        share = None
        if not came.interrupted and self.deadline.fits(_SHARE_SECONDS, final=True):
            key = {"sha256": digest(self.forward), "tune": _EDITION}
            with suppress(KeyboardInterrupt):  # all that was asked for is there
                share = limit_share(engine, given.blocks["calibration"], chosen, key)
        return Tuning(
            forward=str(self.forward),
            goal=str(self.aim),
            keeps=tuple(map(str, keeps)),
            chosen=came.choice.plan,
            proved=came.choice.proved,
            speedup=came.choice.speedup,
            calibration_rows=given.rows["calibration"],
            search_rows=given.rows["search"],
            final_rows=given.rows["final"],
            baseline=bench.base,
            trials=tuple(trials.values()),
            sensitivity=layers.told(came.choice.plan),
            clock=f"{bench.trusted.clock}: {bench.trusted.why}",
            pays_after_rows=pays_after_rows(chosen, bench.base) if came.choice.speedup else None,
            limit_share=share,
            artefact=left,
            interrupted=came.interrupted,
            machine=machine(),
            seconds=self.deadline.elapsed,
            notes=(*notes, *layers.notes, *came.notes, *self.ledger.refused),
        )

    def _labels(self, column: str | None) -> dict[PartName, Labels]:
        """Of each part; none without a column."""
        if column is None:
            return {}
        parts, found, start = self.parts.labels, dict[PartName, Labels](), 0
        values = joined([*parts.values()])
        whole = labels_of(
            Rows({column: values}, np.arange(len(values))), column, self.forward.model
        )
        for name, own in parts.items():
            found[name] = whole.take(range(start, start + len(own)))
            start += len(own)
        return found

    def _defaults(
        self, few: Outputs, labels: Mapping[PartName, Labels], notes: list[str]
    ) -> tuple[Keep, ...]:
        """The budget of who gave none, and why it is that, as a note."""
        found = defaults(few, self.parts.forward.model, labels.get("search"))
        lines = ", ".join(map(str, found.keeps))
        notes.append(f"no --keep was given: {lines}, since {found.why}")
        return found.keeps


def _checked(
    out: str | os.PathLike[str] | None, minutes: float | None, trust: Trust
) -> Path | None:
    """Where the artefact goes. Raises UsageError for arguments that are not what they should be."""
    if trust not in TRUSTED:
        raise UsageError(f"trust {trust!r}: there is no such class; {nearest(trust, TRUSTED)}")
    if minutes is not None and not minutes > 0:
        raise UsageError(f"minutes={minutes}: a tuning takes some; give a number above 0")
    if out is None:
        return None
    path = Path(out)
    if path.suffix != ".fwd":
        raise UsageError(f"{path}: an artefact is a folder NAME.fwd; write -o {path.name}.fwd")
    if path.exists() and not _is_interim(path):
        raise _there(path)
    return path


def _there(out: Path) -> OutputExistsError:
    return OutputExistsError(f"{out} is there already; give another name, or remove it")


def _is_interim(out: Path) -> bool:
    """Whether what is there is the best so far of a tuning that was interrupted."""
    try:
        before = Tuning.from_json((_work_of(out) / TUNING).read_bytes())
    except (OSError, msgspec.DecodeError):
        return False
    return before.interrupted and before.artefact == str(out)


def _work_of(out: Path) -> Path:
    return out.with_name(out.name + _ENDING)


@contextmanager
def _work(out: Path | None) -> Generator[Path]:
    """The folder where trials are kept: beside the artefact, or for this call alone. Raises
    DataError where it cannot be written."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="forwardpass-tune-") as folder:
            yield Path(folder)
        return
    folder = _work_of(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _PLACES:
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / TRIALS).touch()
    except OSError as error:
        raise DataError(
            f"{folder}: trials cannot be kept there: {error.strerror or error}; give -o in a "
            "folder that can be written"
        ) from error
    try:
        yield folder
    finally:
        for name in _PLACES:
            shutil.rmtree(folder / name, ignore_errors=True)


def _told(tuning: Tuning, folder: Path) -> Tuning:
    """Leave the tuning beside its trials; the artefact stands already, whatever the disk does."""
    try:
        written(folder / TUNING, lambda file: file.write(tuning.to_json().encode()))
    except OSError as error:
        note = f"{folder / TUNING} could not be written: {error.strerror or error}"
        return msgspec.structs.replace(tuning, notes=(*tuning.notes, note))
    return tuning


def _left(came: Conducted, out: Path | None) -> str | None:
    """Leave the artefact that was chosen; its path."""
    made = came.choice.made
    if out is None or made is None or made.folder is None:
        return None
    if _is_interim(out):
        shutil.rmtree(out, ignore_errors=True)
    with whole_or_not_there(out) as staging:  # beside it, so that nothing is copied
        for part in made.folder.iterdir():
            part.rename(staging / part.name)
    return str(out)


def _versions() -> list[str]:
    """Of the libraries that plans may need, as far as they are here: with another one a plan that
    was refused may be made."""
    found: list[str] = []
    for needed in metadata.requires("forwardpass") or ():
        name = _NOT_IN_NAME.split(needed, maxsplit=1)[0]
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return found


def _identity(*said: str) -> str:
    return hashlib.sha256(msgspec.json.encode((_EDITION, *said))).hexdigest()
