"""What a page is opened on: a noun, a file that one was saved in, a Forward with what goes in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from forwardpass.code.sources import shortened
from forwardpass.errors import DataError, PassError, UsageError
from forwardpass.exploring.explorations import Exploration
from forwardpass.exploring.rows import PassGiven, given
from forwardpass.loading.artefacts import ArtefactProgram
from forwardpass.nouns.artefacts import Artefact
from forwardpass.nouns.diffs import Diff
from forwardpass.nouns.documents import Document, schema_of
from forwardpass.nouns.explanations import Explanation
from forwardpass.nouns.findings import Findings
from forwardpass.nouns.fingerprints import Changes
from forwardpass.nouns.forwards import Forward
from forwardpass.nouns.machines import MachineLimits
from forwardpass.nouns.plans import Plan
from forwardpass.nouns.profiles import Profile, Shifts
from forwardpass.nouns.records import Record
from forwardpass.nouns.reports import RunReport
from forwardpass.nouns.tunings import Tuning
from forwardpass.nouns.validations import Validation
from forwardpass.nouns.watched import Watched
from forwardpass.probing import record
from forwardpass.recording import is_record
from forwardpass.recording.recordings import Recording

ROWS: Final = 64
"""Rows of a source that a page holds, unless more are asked for."""
_SAVED: Final[tuple[type[Document], ...]] = (
    Record, Findings, Tuning, Profile, Diff, RunReport, Explanation, Validation, Shifts, Changes,
    MachineLimits, Artefact,
)  # fmt: skip
_MOST_BYTES: Final = 1 << 30


def named(forward: Forward) -> str:
    """A Forward in a few words: its file as a reader knows it, and no plan that says nothing."""
    name = shortened(forward.model.name)
    return name if forward.plan == Plan() else f"{name} {forward.plan}"


def of_noun(noun: Document | Watched) -> Exploration:
    """About a noun; its pass can be made again where it is a Recording."""
    if isinstance(noun, Watched):
        return Exploration(noun[-1].forward if len(noun) else "no pass", None, tuple(noun)[-1:])
    if isinstance(noun, Recording):
        return Exploration(noun.forward, PassGiven(noun, notes=noun.notes), (noun,))
    return Exploration(_about(noun), None, (noun,))


def of_file(path: str) -> Exploration | None:
    """About the noun that was saved in a file; None where it holds none, such as a model.

    Raises DataError for a noun that is damaged, or of another version.
    """
    if not Path(path).is_file():
        return None
    if is_record(path):
        return of_noun(Record.load(path))
    if Path(path).suffix == ".py" or Path(path).stat().st_size > _MOST_BYTES:
        return None
    text = Path(path).read_bytes()
    schema = schema_of(text) if text.lstrip()[:1] == b"{" else ""
    if not schema.startswith("forwardpass/"):
        return None
    kind = next((one for one in _SAVED if one.__struct_config__.tag == schema), None)
    if kind is None:
        raise DataError(f"{path} is {schema}, which no page shows")
    try:
        return of_noun(kind.from_json(text))
    except msgspec.MsgspecError as error:
        raise DataError(
            f"{path} is {schema}, and damaged or of another version of forwardpass: {error}"
        ) from error


def of_pass(forward: Forward, inputs: Any, nouns: Sequence[Document] = ()) -> Exploration:
    """About the pass of these inputs, as deployed; where it raises, as far as it came.

    An artefact, which has no module, is shown as what it says of itself.
    """
    if forward.model.program.module is None:
        return _of_artefact(forward, nouns)
    try:
        done = record(forward, inputs, mode="eval", grad="off")
    except PassError as error:
        if not isinstance(error.record, Recording):
            raise
        done = error.record
    rows = PassGiven(done, forward.model.signature, done.notes)
    return Exploration(named(forward), rows, nouns)


def of_rows(
    forward: Forward, source: Any, nouns: Sequence[Document] = (), *, limit: int | None = None,
    label: str | None = None,
) -> Exploration:  # fmt: skip
    """About the rows of a source, with their labels where a column is named; None: drawn by the
    signature. Raises what `given` raises, and UsageError for a column that is not there."""
    if forward.model.program.module is None:
        return _of_artefact(forward, nouns)
    if label is not None and source is None:
        raise UsageError(f"--label {label}: these rows are drawn, and have no columns")
    return Exploration(named(forward), given(forward, source, limit or ROWS, label), nouns)


def _of_artefact(forward: Forward, nouns: Sequence[Document]) -> Exploration:
    program = forward.model.program
    if isinstance(program, ArtefactProgram):
        nouns = (*nouns, program.artefact)
    return Exploration(named(forward), None, nouns)


def _about(noun: Document) -> str:
    """What a noun is of, in its own words."""
    if isinstance(noun, Profile):
        return ", ".join(one.forward for one in noun.passes)
    if isinstance(noun, Diff):
        return f"{noun.a} beside {noun.b}"
    said = getattr(noun, "forward", None) or getattr(noun, "name", None)
    return said if isinstance(said, str) else str(noun.__struct_config__.tag).split("/")[1]
