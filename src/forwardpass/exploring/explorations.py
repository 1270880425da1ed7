"""Exploration: what a page is about, and the passes that answer its questions."""

from __future__ import annotations

import linecache
import re
import traceback
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from forwardpass.code.frames import START_NAME
from forwardpass.code.owners import Owner, is_installed, owner
from forwardpass.code.sources import file_of, lines_held, shortened
from forwardpass.errors import PassError, UsageError
from forwardpass.exploring.rows import Given
from forwardpass.exploring.watched_servers import WatchedServer
from forwardpass.nouns.documents import Document
from forwardpass.nouns.progress import Steps
from forwardpass.nouns.records import Record
from forwardpass.probing.changes import SAME, Change
from forwardpass.probing.probes import Probe
from forwardpass.recording.observing import Watching
from forwardpass.recording.recordings import Recording, recorded

T = TypeVar("T")
Noun = TypeVar("Noun", bound=Document)
_PROBES: Final = 4
"""Kept, those asked for last: each may hold all values of a pass."""
_VALUE_BYTES: Final = 256 << 20
"""Of the values of a pass that are kept unasked; each pass that is held may have as many."""
_FILE: Final = re.compile(r".+?\.py\b")


class Exploration:
    """A Forward with rows, nouns that were made before, or both.

    Its passes are made by one thread, see desks; each of them leaves the module as it was.

    Attributes:
        name: what it is about, in a few words.
        given: the rows and their passes; None: nothing can be run, only what was saved is shown.
        nouns: what is shown beside, such as a Profile or a Tuning that was saved.
        steps: of the question that is answered: told of each call of a pass that is recorded, and
            may end it there.
        traces: by rows, where the pass of these raised.
        served: a server whose batches and queue are shown, where one is.
        value_bytes: that the values of a pass may take to be kept; see `keep`.
    """

    def __init__(
        self, name: str, given: Given | None, nouns: Sequence[Document] = (), *,
        served: WatchedServer | None = None,
    ) -> None:  # fmt: skip
        self.name, self.given, self.nouns = name, given, tuple(nouns)
        self.steps = Steps()
        self.served = served
        self.value_bytes = _VALUE_BYTES
        self.traces: dict[tuple[int, ...], str] = {}
        self._probes: OrderedDict[tuple[int, ...], Probe | Recording] = OrderedDict()
        self._once: dict[tuple[str, int], Any] = {}
        self._expected = 0
        self._files: dict[str, _FileThen] = {}
        for file in _FILE.findall(name)[:1]:
            self._files[file] = _FileThen.of(file)

    @property
    def is_empty(self) -> bool:
        """Whether it is about nothing: neither a model nor a noun."""
        return self.given is None and not self.nouns

    @property
    def count(self) -> int:
        """How many rows can go in."""
        return 1 if self.given is None else self.given.count

    def noun(self, kind: type[Noun]) -> Noun | None:
        """The first of the nouns that is of this kind."""
        return next((noun for noun in self.nouns if isinstance(noun, kind)), None)

    def probe(self, rows: Sequence[int] = (0,)) -> Probe:
        """The pass of these rows, and the ways to make it again with something changed.

        Raises PassError where the pass raises, with `error.record` as far as it came; UsageError
        where nothing can be run.
        """
        found = self._made(tuple(rows))
        if isinstance(found, Probe):
            return found
        assert found.failed is not None
        error = PassError(found.failed.error)
        error.record = found
        raise error

    def record(
        self, rows: Sequence[int] = (0,), change: Change = SAME, *, values: bool = False
    ) -> Record:
        """The record of a pass; where it raised, of the calls before that. Of what was saved,
        that. Raises PassError for a change of a pass that raises without it."""
        if self.given is None:
            saved = self.noun(Record)
            if saved is None:
                raise UsageError(f"{self.name} holds no record of a pass")
            return saved
        try:
            probe = self.probe(rows)
            if change == SAME and not values:
                return probe.record
            return probe.recording(change, values=values)
        except PassError as error:
            if error.record is None or change != SAME:
                raise
            return error.record

    def keep(self, value_bytes: int) -> None:
        """Make room for so many bytes of values, in the passes that are made from now on."""
        self.value_bytes = max(self.value_bytes, value_bytes)
        self._probes.clear()

    def once(self, what: str, row: int, make: Callable[[], T]) -> T:
        """What several questions need of a row: made for the first of them. Of the model, whatever
        the row, it is -1."""
        if (what, row) not in self._once:
            self._once[what, row] = make()
        return self._once[what, row]

    def forget(self) -> None:
        """Make anew what was measured of rows, for who asks again; what was built stays."""
        self._once = {key: made for key, made in self._once.items() if key[1] < 0}

    def changed(self) -> tuple[str, ...]:
        """The files of the model that are not as they were when its pass was recorded."""
        files = list(self._files.items())  # another thread may add to them
        return tuple(shortened(file) for file, then in files if _modified(file) != then.modified)

    def as_recorded(self) -> AbstractContextManager[None]:
        """Until the block ends the files that have changed since have the lines that the pass ran:
        also a pass that is made anew is one of the module as it was loaded."""
        changed = ((file, then) for file, then in self._files.items()
                   if _modified(file) != then.modified)  # fmt: skip
        return lines_held({file: then.lines for file, then in changed})

    def _made(self, rows: tuple[int, ...]) -> Probe | Recording:
        known = self._probes.get(rows)
        if known is None:
            known = self._probes[rows] = self._recorded(rows)
            while len(self._probes) > _PROBES:
                self._probes.popitem(last=False)
        self._probes.move_to_end(rows)
        return known

    def _recorded(self, rows: tuple[int, ...]) -> Probe | Recording:
        given = self.given
        if given is None:
            raise UsageError(
                f"{self.name} was saved: it holds no model to run; open the model itself with "
                "`fwd explain FORWARD`"
            )
        wrong = [row for row in rows if not 0 <= row < given.count]
        if wrong or not rows:
            raise UsageError(f"row {wrong[0] if wrong else ''}: there are {given.count:,}, from 0")
        this = given.passed(rows)
        watching = Watching(False, None, None, self._called)
        try:
            made = given.known(rows) or recorded(self.name, this, given.notes, watching)
        except PassError:  # once more, with the values as far as it comes
            watching = Watching(False, "all", self.value_bytes, self._called)
            try:
                made = recorded(self.name, this, given.notes, watching)
            except PassError as error:
                if error.record is None:
                    raise
                self.traces[rows] = _trace(error.__cause__ or error)
                made = error.record
        self._expected = len(made.calls)
        for site in made.sites:
            if not is_installed(site) and (file := file_of(site.file)) not in self._files:
                self._files[file] = _FileThen.of(file)
        if made.failed is not None:
            return made
        return Probe(made, given.signature, value_bytes=self.value_bytes, called=self._called)

    def _called(self, calls: int) -> None:
        self.steps.called(calls, self._expected)


class _FileThen(NamedTuple):
    """A file as it was when a pass that ran its lines was recorded."""

    modified: float | None
    lines: tuple[str, ...]

    @staticmethod
    def of(file: str) -> _FileThen:
        return _FileThen(_modified(file), tuple(linecache.getlines(file_of(file))))


def _modified(file: str) -> float | None:
    """When a file was written; None where there is none."""
    try:
        return Path(file).stat().st_mtime
    except OSError:
        return None


def _trace(error: BaseException) -> str:
    """The traceback from the model on: of frames in between that are ours, or PyTorch's where it
    calls a module, nobody learns."""
    frames = traceback.extract_tb(error.__traceback__)
    start = max((n + 1 for n, f in enumerate(frames) if f.name == START_NAME), default=0)
    told = [f for f in frames[start:] if owner(f.filename) not in (Owner.OURS, Owner.TORCH)]
    lines = traceback.format_list(told) + traceback.format_exception_only(error)
    return "".join(lines).rstrip()
