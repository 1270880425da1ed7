"""Lines: which statements a pass came by, in order, how often each, in which call of a function.

The trace function of this thread notes lines as they are about to run; whose statements they are,
and which of them begin one, is made out afterwards.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import CO_GENERATOR
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple, Protocol, Self

from forwardpass.code.statements import body_of, source

MOST: Final = 2_000_000
"""LineTrace that are noted in order; 8 bytes each."""
_WITHIN: Final = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>", "<lambda>"})
"""Functions that are written within a statement of another one."""
_CALL: Final = 0
"""In place of a line: a function was called."""


class TraceFunction(Protocol):
    def __call__(self, frame: FrameType, event: str, argument: Any, /) -> TraceFunction | None: ...


class StatementPlace(NamedTuple):
    """A statement: the file as code objects name it, its first line, the function around it.

    `within` says that a comprehension or a lambda ran there, which is a part of a statement.
    """

    file: str
    line: int
    function: str
    within: bool = False


@dataclass(frozen=True)
class Itinerary:
    """The statements that ran, in order.

    Attributes:
        places: each once. steps: which of them, in order.
        activations: of each step, the call of its function, numbered as they first appear.
        parents: by activation, the one from which it was called; -1 for none.
        lines, visits: of each step, the line with which it began, and how often that had run.
        is_cut: there were more lines than are noted.
    """

    places: tuple[StatementPlace, ...]
    steps: array[int]
    activations: array[int]
    parents: tuple[int, ...]
    lines: array[int]
    visits: array[int]
    is_cut: bool

    def times(self) -> Counter[tuple[str, int]]:
        """How often each statement ran, by file and first line; for a function, how often it was
        called. What ran within a statement counts where no statement begins."""
        found = Counter(self.steps)
        outer: Counter[tuple[str, int]] = Counter()
        inner: Counter[tuple[str, int]] = Counter()
        for number, times in found.items():
            place = self.places[number]
            (inner if place.within else outer)[place.file, place.line] += times
        return Counter({**inner, **outer})


class ThreadTrace(ABC):
    """Traces what runs within it on this thread.

    A debugger or a coverage tool that traces this thread is off meanwhile, and on again afterwards.
    """

    _before: Any = None

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._entered)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    @abstractmethod
    def _entered(self, frame: FrameType, event: str, argument: Any, /) -> TraceFunction | None:
        """Called with each frame that is entered: what traces that; None: nothing of it."""


class LineTrace(ThreadTrace):
    """While code runs within it on this thread, notes the lines of files that `wanted` takes.

    Args:
        marks: by file and line, what to call with the frame each time before that line runs.
    """

    def __init__(
        self, wanted: Callable[[str], bool],
        marks: Mapping[tuple[str, int], Callable[[FrameType], None]] | None = None,
    ) -> None:  # fmt: skip
        self._wanted, self._marks = wanted, marks or {}
        self._codes: dict[int, dict[int, int] | None] = {}
        self._alive: list[object] = []  # ids are compared, so these must stay
        self._places: list[tuple[CodeType, int]] = []
        self._noted = array("l")
        self._activations = array("l")
        self._parents: list[int] = []
        self._running: dict[int, int] = {}
        self._is_cut = False

    def _entered(self, frame: FrameType, event: str, argument: Any, /) -> TraceFunction | None:
        code = frame.f_code
        numbers = self._codes.get(id(code), ...)
        if numbers is ...:
            numbers = self._codes[id(code)] = {} if self._wanted(code.co_filename) else None
            self._alive.append(code)
        if numbers is None:
            return None
        known = self._running.get(id(frame))
        activation = self._activation(frame) if known is None else known
        if known is None:
            self._note(frame, numbers, _CALL, activation)

        def step(frame: FrameType, event: str, argument: Any, /) -> TraceFunction | None:
            if event == "line":
                self._note(frame, numbers, frame.f_lineno, activation)
            elif event == "return" and not code.co_flags & CO_GENERATOR:
                self._running.pop(id(frame), None)
            return step

        return step

    def _activation(self, frame: FrameType) -> int:
        """The number of a call that begins. A generator's frame is kept: it comes again."""
        outer = frame.f_back
        while outer is not None and id(outer) not in self._running:
            outer = outer.f_back
        number = self._running[id(frame)] = len(self._parents)
        self._parents.append(-1 if outer is None else self._running[id(outer)])
        if frame.f_code.co_flags & CO_GENERATOR:
            self._alive.append(frame)
        return number

    def _note(
        self, frame: FrameType, numbers: dict[int, int], line: int, activation: int
    ) -> None:  # fmt: skip
        if len(self._noted) >= MOST:
            self._is_cut = True
            return
        number = numbers.get(line)
        if number is None:
            number = numbers[line] = len(self._places)
            self._places.append((frame.f_code, line))
        self._noted.append(number)
        self._activations.append(activation)
        if self._marks and (mark := self._marks.get((frame.f_code.co_filename, line))) is not None:
            mark(frame)

    def way(self) -> Itinerary:
        """The statements of the lines that were noted.

        A statement of several lines, to whose first line Python comes back, ran once; the head of
        a `with` is come back to when its body is left.
        """
        read = [_read(code, line) for code, line in self._places]
        places: dict[StatementPlace, int] = {}
        steps, activations, lines, visits = (array("l") for _ in range(4))
        seen: Counter[tuple[str, int]] = Counter()
        numbers: dict[int, int] = {}
        parents: list[int] = []
        last: dict[int, _NotedLine] = {}
        for number, activation in zip(self._noted, self._activations, strict=True):
            now = read[number]
            code, line = self._places[number]
            seen[code.co_filename, line] += 1
            if not now.is_call:
                before = last.get(activation)
                last[activation] = now
                if before is not None and now.goes_on(before):
                    continue
            elif not now.counts:
                continue
            if activation not in numbers:
                outer = self._parents[activation]
                while outer >= 0 and outer not in numbers:
                    outer = self._parents[outer]
                numbers[activation] = len(parents)
                parents.append(numbers.get(outer, -1))
            steps.append(places.setdefault(now.place, len(places)))
            activations.append(numbers[activation])
            lines.append(line)
            visits.append(seen[code.co_filename, line])
        return Itinerary(
            tuple(places), steps, activations, tuple(parents), lines, visits, self._is_cut
        )


class _NotedLine(NamedTuple):
    """What a line that was noted is: `counts` for a call that has a `def` of its own to show."""

    place: StatementPlace
    line: int
    is_call: bool
    counts: bool
    is_long: bool
    left: tuple[int, int] | None

    def goes_on(self, before: _NotedLine) -> bool:
        """Whether the statement ran already when the line before it, of the same call, did."""
        if self.is_long and before.place == self.place:
            return True
        return self.left is not None and self.left[0] <= before.line <= self.left[1]


def _read(code: CodeType, line: int) -> _NotedLine:
    text = source(code.co_filename)
    within = code.co_name in _WITHIN
    function = code.co_qualname
    if line == _CALL:
        start = text.start(code.co_firstlineno)
        counts = not within and not function.rpartition(".")[0].endswith("<locals>")
        return _NotedLine(
            StatementPlace(code.co_filename, start, function), start, True, counts, False, None
        )
    start = line if within else text.start(line)
    node = text.at(start)
    left = body_of(node) if node is not None and type(node).__name__.endswith("With") else None
    place = StatementPlace(code.co_filename, start, function, within)
    return _NotedLine(place, line, False, True, not within and text.is_long(start), left)
