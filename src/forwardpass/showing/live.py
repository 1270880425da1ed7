"""A verb while it works: one line on standard error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from forwardpass.nouns.progress import Progress as Counters
from forwardpass.nouns.progress import Steps
from forwardpass.showing.wording import GREEN, VERMILLION, plain, rate, visible

_HowFar: TypeAlias = Callable[[], tuple[str, int | None, float | None]]
"""Stage, done, and total; where nothing is counted, what is done are the seconds that went by."""
_LONGEST = 40
"""Columns of what is at work."""


@contextmanager
def live(counters: Counters, console: Console) -> Generator[None]:
    """Show the counters of a run until the block ends; nothing where the console is no terminal."""
    columns = (
        MofNCompleteColumn(),
        _Counters(counters),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
    )

    def state() -> tuple[str, int, int | None]:
        return counters.stage, counters.rows, counters.total

    with _followed(state, console, *columns, below=lambda: counters.workers):
        yield


@contextmanager
def stepping(steps: Steps, console: Console, most_seconds: float | None = None) -> Generator[None]:
    """Show how far the steps of a verb have come until the block ends, likewise: of a verb that may
    take `most_seconds`, how many of them are left."""

    def state() -> tuple[str, int, int | None]:
        # More steps than were foreseen: nobody knows how many there are.
        return steps.stage, steps.done, steps.total if steps.done <= steps.total else None

    def timed() -> tuple[str, None, float | None]:
        return steps.stage, None, most_seconds

    if most_seconds is None:
        columns = (MofNCompleteColumn(), TimeElapsedColumn())
    else:
        columns = (_Best(steps), _TimeLeft())
    with _followed(state if most_seconds is None else timed, console, *columns):
        yield


@contextmanager
def _followed(
    state: _HowFar, console: Console, *columns: ProgressColumn,
    below: Callable[[], Iterable[str]] = tuple,
) -> Generator[None]:  # fmt: skip
    """A bar that reads stage, done and total each time it is drawn, and the lines below it."""
    if not console.is_terminal:
        yield
        return
    progress = _ProgressLine(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False, table_column=_named()),
        BarColumn(bar_width=None),
        *columns,
        console=console,
        transient=True,
        refresh_per_second=5,
    )
    progress.state, progress.below = state, below
    stage, _, total = state()
    progress.add_task(visible(stage), total=total)
    with progress:
        yield


def _named() -> Column:
    """One line for what is at work, whose end is left out where it is too long."""
    return Column(max_width=_LONGEST, no_wrap=True, overflow="ellipsis")


class _ProgressLine(Progress):
    """Asks how far it is each time it is drawn."""

    state: _HowFar | None = None
    below: Callable[[], Iterable[str]] = tuple

    def get_renderables(self) -> Iterable[RenderableType]:
        """The line as things stand now, and those below it."""
        if self.state is not None:
            stage, done, total = self.state()
            for task in self.tasks:
                come = (task.elapsed or 0.0) if done is None else done
                self.update(task.id, description=visible(stage), completed=come, total=total)
        yield from super().get_renderables()
        yield from (Text(f"  {visible(line)}", "dim") for line in self.below())


class _Best(TextColumn):
    """The best so far, where something is sought."""

    def __init__(self, steps: Steps) -> None:
        super().__init__("", table_column=_named())
        self._steps = steps

    def render(self, task: Task) -> Text:
        best = self._steps.best
        return plain(Text(f"best {best}" if best else "", GREEN))


class _TimeLeft(TextColumn):
    """What is left of the seconds that a verb may take."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        minutes, seconds = divmod(max(0, round(task.remaining or 0.0)), 60)
        return Text(f"{minutes}:{seconds:02d} left", "cyan")


class _Counters(TextColumn):
    """rows/s · padding · left out."""

    def __init__(self, counters: Counters) -> None:
        super().__init__("")
        self._counters = counters

    def render(self, task: Task) -> Text:
        counters = self._counters
        parts: list[str] = []
        if task.elapsed and counters.rows > counters.resumed:
            parts.append(f"{rate((counters.rows - counters.resumed) / task.elapsed)} rows/s")
        if counters.padded_cells > counters.real_cells:
            parts.append(f"{1 - counters.real_cells / counters.padded_cells:.0%} padding")
        text = Text(" · ".join(parts))
        if counters.quarantined:
            text.append(f" ! {counters.quarantined} left out", VERMILLION)
        return text


@contextmanager
def steps(title: str, total: int, console: Console) -> Generator[Callable[[], object]]:
    """A bar of `total` steps until the block ends, and the function that takes one."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)


@contextmanager
def logged(show: Callable[[str], object]) -> Generator[None]:
    """Show what is at work, as the logger `forwardpass` has it, until the block ends."""

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            show(record.getMessage())

    log, handler = logging.getLogger("forwardpass"), Shown()
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(handler)
